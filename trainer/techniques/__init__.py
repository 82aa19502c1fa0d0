"""Techniques that change the compute weights, one file each; `registry.py` finds them.

To add one: a file here with a subclass of `Technique`, and its section in `config.py`. docs/adding_a_technique.md shows a
whole example.
"""
