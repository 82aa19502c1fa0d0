"""The `pgray` command: `pgray/cli/entry.py` lists the verbs, the other modules run them."""

from pgray.cli.entry import app, main

__all__ = ["app", "main"]
