"""Extract English prose from Python source files: their docstrings as paragraphs, without code.

Every machine that can run this project has this text, under licences that allow reading it, at the versions that
`constraints.txt` pins. Files are parsed, never imported, since importing runs code.

A paragraph is kept if it reads like a sentence or more; doctests, tables, signatures and markup are dropped. There is more
documentation than a corpus needs, so doubtful text is dropped, too.
"""

import ast
import hashlib
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

_MIN_WORDS = 6
_MIN_LETTER_FRAC = 0.9  # letters, digits, spaces and sentence punctuation
_MIN_COMMON_FRAC = 0.15  # share of words in _COMMON
_COMMON = re.compile(
    r"\b(?:an?|and|are|as|at|be|but|by|can|does|each|for|from|has|have|if|in|into|is|its?|may|more|must|not|of|only|on|or|"
    r"other|same|should|some|so|such|than|that|their|then|there|these|they|the|this|to|used|was|when|where|which|will|"
    r"without|with|you|your)\b",
    re.IGNORECASE,
)
_FIELD = re.compile(r"^:\w[\w*. ]{0,60}:\s*")
_ROLE = re.compile(r":[a-zA-Z:+-]+:`~?([^`<>]*)(?:<[^`]*>)?`")
_LINK = re.compile(r"`([^`<>]+?)\s*<[^`]*>`_{0,2}")
_MARKUP = re.compile(r"`+|\*{1,2}(?=\w)|(?<=\w)\*{1,2}|\|(?=\w)|(?<=\w)\|")
_FOOTNOTE = re.compile(r"\s*\[#?\w+\]_")
_BULLET = re.compile(r"^(?:[-*+•]|\(?\d{1,2}[.)])\s+")
_NOT_PROSE = re.compile(r">>>|^\.\. |^\s*\.\.\.|^[=\-~^#*+_\"']{3,}|[{}\\]|\w\(.*\)\s*->|^@|^\$|https?://\S*$", re.M)
_WORD = re.compile(r"[A-Za-z']+")
_BEGINS = re.compile(r"[\w\"'“(]")
_ENDS = re.compile(r"[.!?:;)\"'”’]$")
_LETTERS = re.compile(r"[a-z]+")
_PLAIN = re.compile(r"[\w\s.,;:!?'\"()’“”—–-]")


def paragraphs(text: str) -> Iterator[str]:
    """Yield the prose paragraphs of a docstring, each on one line and without markup."""
    indented_code = False
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if indented_code and block.startswith((" ", "\t")):
            continue  # the body of a `::` literal or a directive
        indented_code = block.rstrip().endswith("::") or block.startswith(".. ")
        for piece in _pieces(block):
            line = _clean(piece)
            if _is_prose(line):
                yield line


def _pieces(block: str) -> Iterator[str]:
    """Split a block at list items, fields and changes of indentation."""
    piece: list[str] = []
    last_indent = None
    for raw in block.split("\n"):
        line = raw.strip()
        indent = len(raw) - len(raw.lstrip())
        starts = bool(_BULLET.match(line) or _FIELD.match(line))
        if piece and (starts or (indent != last_indent and not (_BULLET.match(piece[0]) or _FIELD.match(piece[0])))):
            yield "\n".join(piece)
            piece = []
        piece.append(line)
        last_indent = indent
    yield "\n".join(piece)


def _clean(piece: str) -> str:
    if _NOT_PROSE.search(piece):
        return ""
    line = " ".join(piece.split())
    line = _BULLET.sub("", _FIELD.sub("", line))
    line = _FOOTNOTE.sub("", _LINK.sub(r"\1", _ROLE.sub(r"\1", line)))
    return " ".join(_MARKUP.sub("", line).replace("::", ":").split())


def _is_prose(line: str) -> bool:
    num_words = len(_WORD.findall(line))
    if num_words < _MIN_WORDS or not _BEGINS.match(line) or not _ENDS.search(line):
        return False
    is_english = len(_COMMON.findall(line)) >= _MIN_COMMON_FRAC * num_words
    return is_english and len(_PLAIN.findall(line)) >= _MIN_LETTER_FRAC * len(line)


def paragraph_key(paragraph: str) -> bytes:
    """Return a hash of the letters, ignoring case, numbers and punctuation: equal paragraphs have equal keys."""
    letters = " ".join(_LETTERS.findall(paragraph.lower()))
    return hashlib.blake2b(letters.encode(), digest_size=12).digest()


def docstrings(source: bytes) -> Iterator[str]:
    """Yield every docstring of a source file, and every string in a call or an assignment whose name contains `doc`.

    numpy and torch document compiled functions with calls (`add_newdoc`, `add_docstr`), pandas and pydoc with tables
    (`_shared_docs`, `topics`). A file that this Python cannot parse yields nothing.
    """
    if b'"""' not in source and b"'''" not in source and b"doc" not in source:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's files
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    yield from _walk(tree.body)


def _walk(body: list[ast.stmt]) -> Iterator[str]:
    match body:
        case [ast.Expr(ast.Constant(str(text))), *_]:
            yield text
    for statement in body:
        match statement:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _walk(statement.body)
            case ast.If() | ast.Try():
                yield from _walk(statement.body)
                yield from _walk(statement.orelse)
            case ast.Expr(ast.Call(func, args)) if _is_about_docs(func):
                yield from _texts(*args)
            case ast.Assign([target, *_], value) if _is_about_docs(target):
                yield from _texts(value)


def _is_about_docs(node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript):
        node = node.value
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return "doc" in name or name == "topics"


def _texts(*values: ast.expr) -> Iterator[str]:
    for value in values:
        for node in ast.walk(value):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def document(path: Path) -> list[str]:
    """Return the prose paragraphs of a source file without repetitions."""
    kept: dict[bytes, str] = {}
    for text in docstrings(path.read_bytes()):
        for paragraph in paragraphs(text):
            kept.setdefault(paragraph_key(paragraph), paragraph)
    return list(kept.values())
