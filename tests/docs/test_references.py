"""Docstrings, comments and docs pages name only files that exist."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MENTION = re.compile(r"(?<![\w./:*<{-])[\w-][\w./-]*\.(?:py|md|yaml)\b(?!\()")
# Files of a run folder, of a submission, of the challenge's repository, of a user; and a name that must not exist.
ELSEWHERE = {
    "utils.py", "train_gpt.py", "cached_challenge_fineweb.py", "table.md", "README.md", "sweep.yaml", "job.yaml",
    "late_qat.yaml", "mlp-bits.yaml",
}  # fmt: skip
FOLDERS = ("bench", "docs", "pgray", "results", "sweeps", "tests", "trainer")

FILES = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.*")))]
NUM_OF_NAME = Counter(path.name for path in FILES)
PAGES = [path for path in FILES if path.suffix in (".py", ".md", ".yaml")]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text: the comments and docstrings of a Python file, every line of another file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from enumerate(node.value.value.splitlines(), node.lineno)


def exists(mention: str, page: Path) -> bool:
    if (
        Path(mention).name in ELSEWHERE
        or Path(mention).stem == "NAME"
        or (ROOT / mention).is_file()
        or (page.parent / mention).is_file()
    ):
        return True
    return "/" not in mention and NUM_OF_NAME[mention] == 1


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_mentioned_files_exist(page: Path) -> None:
    missing = [f"line {line}: {m}" for line, text in prose(page) for m in MENTION.findall(text) if not exists(m, page)]
    assert not missing


def test_a_mention_of_a_missing_file_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text(
        '"""See `quant/nothing.py` and README.md."""\n# and nothing.md, https://a.b/nothing.py, *.py\n"not.py"\n'
    )
    found = [(line, m) for line, text in prose(page) for m in MENTION.findall(text) if not exists(m, page)]
    assert sorted(found) == [(1, "quant/nothing.py"), (2, "nothing.md"), (3, "not.py")]
