"""What a command prints: characters that the terminal lacks, a full disk, a closed pipe or terminal.

A failed write leaves its text in the stream's buffer, and Python would try it again at exit and print a second error.
`discard_output` prevents that.
"""

import codecs
import errno
import io
import os
import sys
from typing import Any, TextIO

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
    """The file behind a standard stream.

    Errors of standard output name it; Python's own do not, nor those of other files. An error that nobody could read must
    not end a run: so standard error has none, and a stream of a terminal that was closed has none.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._is_terminal = self.isatty()

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self.fileno() == 2 or (self._is_terminal and error.errno == errno.EIO):
                return len(data)
            error.filename = STANDARD_OUTPUT
            raise


def guard_output() -> None:
    """Guard both streams, and let them replace characters that their encoding lacks."""
    codecs.register_error(_ERRORS, _replace)
    # Another object is guarded already, or belongs to a test that captures it.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _guarded(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _guarded(sys.stderr, 2)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_ERRORS)


def _guarded(stream: TextIO, number: int) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    is_by_line = stream.line_buffering or stream.write_through  # write_through: PYTHONUNBUFFERED is set
    stream.flush()
    output = io.BufferedWriter(_Output(number))
    return io.TextIOWrapper(output, encoding=stream.encoding, line_buffering=is_by_line)


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
