"""The `pgray` command: `entry.py` parses and dispatches, the other modules hold the verbs."""

from pgray.cli.entry import app, main

__all__ = ["app", "main"]
