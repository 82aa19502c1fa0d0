"""What a command prints: characters that the terminal lacks, a full disk, a closed pipe or terminal.

A failed write leaves its text in the stream's buffer, and Python would try it again at exit and print a second error.
`discard_output` prevents that.
"""

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

_PLAIN = {
    "±": "+-", "Δ": "D", "–": "-", "—": "-", "−": "-", "×": "x", "·": ".", "…": "...", "≥": ">=", "≤": "<=", "→": "->",
    "•": "*", "✕": "x", "’": "'", "“": '"', "”": '"',
}  # fmt: skip
_ERRORS = "pgray-plain"


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    plain = (_PLAIN.get(char, "?") for char in error.object[error.start : error.end])
    return "".join(part if part.isascii() else "?" for part in plain), error.end


class OutputError(OSError):
    """Standard output cannot be written. Not a BrokenPipeError, at which rich would end the process."""

    @property
    def is_closed(self) -> bool:
        """Whether the reader closed it, as in `pgray logs RUN TRIAL | head`."""
        return self.errno == errno.EPIPE


class _Output(io.FileIO):
    """The file behind a standard stream.

    Nobody can be told what standard error does not take, nor what a terminal does not take that was closed, and a run must
    go on: such a write is no error.
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
            raise OutputError(error.errno, error.strerror, "standard output") from None


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


def _guarded(stream: Any, number: int) -> Any:
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # None: the process was started without
    is_by_line = stream.line_buffering or stream.write_through  # write_through: PYTHONUNBUFFERED is set
    stream.flush()
    output = io.BufferedWriter(_Output(number))
    return io.TextIOWrapper(output, encoding=stream.encoding, line_buffering=is_by_line)


def discard_output() -> None:
    """Send what is still in the buffer of standard output nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def ignoring_closed_output() -> Iterator[None]:
    """Print what the exit code does not depend on: if its reader closes standard output, the rest goes nowhere."""
    try:
        yield
        sys.stdout.flush()
    except OutputError as error:
        if not error.is_closed:
            raise
        discard_output()


def print_file(text: str) -> None:
    """Print the content of a file, without a newline at its end. Redirected, it is in UTF-8 like every file of a run."""
    text = text.rstrip("\n") + "\n"
    if sys.stdout.isatty():
        print(text, end="")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
