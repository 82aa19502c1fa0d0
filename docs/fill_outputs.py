"""Fills the outputs of the commands in docs/tutorial.md: `python docs/fill_outputs.py [--check]`.

A block of kind `console` is one command after `$` and its output. The commands read docs/example in place of `runs`.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent
PAGE = DOCS / "tutorial.md"
_BLOCK = re.compile(r"```console\n\$ (?P<command>[^\n]+)\n.*?```", re.DOTALL)
_VARIES = re.compile(r"[\d,]+ ±\d+%")  # forecast bytes: they include the trainer's code, and change with its every edit
_PLACES = {"runs/mlp-bits": "example/mlp-bits", "mlp-bits.yaml": "example/mlp-bits/sweep.yaml"}


def filled(text: str) -> str:
    """Return the page with what its commands print now."""
    return _BLOCK.sub(lambda block: f"```console\n$ {block['command']}\n{_output(block['command'])}```", text)


def _output(command: str) -> str:
    words = [_PLACES.get(word, word) for word in shlex.split(command)[1:]]
    environment = os.environ | {"COLUMNS": "100", "PYTHONPATH": str(DOCS.parent), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pgray", *words], capture_output=True, text=True, check=True, cwd=DOCS, env=environment
    )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def main() -> None:
    old = PAGE.read_text(encoding="utf-8")
    new = filled(old)
    if "--check" not in sys.argv:
        PAGE.write_text(new, encoding="utf-8")
    elif _VARIES.sub("", new) != _VARIES.sub("", old):
        sys.exit("docs/tutorial.md shows other outputs than its commands print: run python docs/fill_outputs.py")


if __name__ == "__main__":
    main()
