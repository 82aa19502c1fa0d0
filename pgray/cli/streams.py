"""Standard output of a command: characters that the terminal lacks, a full disk, a closed pipe.

A failed write leaves its text in the stream's buffer, and Python would try it again at exit and print a second error.
`discard_output` prevents that.
"""

import codecs
import io
import os
import sys
from typing import Any

STANDARD_OUTPUT = "standard output"

_PLAIN = {
    "±": "+-", "Δ": "D", "–": "-", "—": "-", "−": "-", "×": "x", "·": ".", "…": "...", "≥": ">=", "≤": "<=", "→": "->",
    "•": "*", "✕": "x", "’": "'", "“": '"', "”": '"',
}  # fmt: skip
_ERRORS = "pgray-plain"


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    plain = (_PLAIN.get(char, "?") for char in error.object[error.start : error.end])
    return "".join(part if part.isascii() else "?" for part in plain), error.end


class _Output(io.FileIO):
    """The file behind standard output. Its errors name it; Python's own do not, nor those of other files."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            raise


def guard_output() -> None:
    """Let both streams replace characters that their encoding lacks, and errors of standard output name it."""
    codecs.register_error(_ERRORS, _replace)
    # Another object is guarded already, or belongs to a test that captures it.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout is sys.__stdout__:
        is_by_line = sys.stdout.line_buffering or sys.stdout.write_through  # write_through: PYTHONUNBUFFERED is set
        sys.stdout.flush()
        output = io.BufferedWriter(_Output(1, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(output, encoding=sys.stdout.encoding, line_buffering=is_by_line)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_ERRORS)


def discard_output() -> None:
    """Send what is still in the buffer of standard output nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_file(text: str) -> None:
    """Print the content of a file, without a newline at its end. Redirected, it is in UTF-8 like every file of a run."""
    text = text.rstrip("\n") + "\n"
    if sys.stdout.isatty():
        print(text, end="")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
