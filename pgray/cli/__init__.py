"""The `pgray` command: `pgray/cli/entry.py` lists the verbs, the other modules run them."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line. Returns the exit code."""
    try:
        from pgray.cli import entry  # here, so that Ctrl-C during the imports is one line too

        return entry.main(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
