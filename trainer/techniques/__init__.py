"""Techniques that change the compute weights, one file each, found by `trainer/techniques/registry.py`.

To add one, write a file here with a subclass of `Technique`, and its section in `trainer/techniques/config.py`;
docs/adding_a_technique.md shows an example.
"""
