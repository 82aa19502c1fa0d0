"""Packs the trainer into one self-contained Python file, whose size the challenge counts.

The file holds the sources of this package without docstrings and comments, and the presets, in one lzma stream. It unpacks
them into a temporary folder: `python train_gpt.py --help` works anywhere, `torchrun train_gpt.py ...` trains. A config at its
top, readable, makes it repeat that trial (`trainer/run/reproduce.py`). A submission ships this file, so a trial's
`code_bytes` is its size.
"""

import ast
import base64
import hashlib
import json
import lzma
import re
import textwrap
from functools import cache
from pathlib import Path

from trainer.config import Config

PACKAGE_DIR = Path(__file__).resolve().parents[1]
NOT_SHIPPED = ("trainer/records/ledger.py", "trainer/records/states.py", "trainer/run/preflight.py")
"""Modules that only pgray and results import."""

_LZMA = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "pb": 0}]  # pb 0: text has no alignment

_BOOTSTRAP = '''\
import atexit,base64,json,lzma,pathlib,shutil,sys,tempfile
C={config}
S=json.loads(lzma.decompress(base64.b85decode("""{payload}""".replace("\\n",""))))
D=tempfile.mkdtemp(prefix="trainer-")
atexit.register(shutil.rmtree,D,True)
for n,t in S.items():
    p=pathlib.Path(D,n)
    p.parent.mkdir(parents=True,exist_ok=True)
    p.write_text(t,encoding="utf-8")
sys.path.insert(0,D)
if __name__=="__main__":
    from trainer.{module} import main
    sys.exit(main(C))
'''


def bundle_code(config: Config | None = None) -> bytes:
    """Return the packed trainer: for one trial or, without a config, for any job file (`trainer/__main__.py`).

    Equal sources give equal bytes.
    """
    module = "__main__" if config is None else "run.reproduce"
    code = _BOOTSTRAP.replace("{module}", module).replace("{payload}", _payload())
    return code.replace("{config}", "None" if config is None else _literal(config)).encode()


def _literal(config: Config) -> str:
    """Return the seed and what differs from the defaults as a Python expression. JSON never has three quotes in a row."""
    changed = config.model_dump(mode="json", exclude_defaults=True) | {"seed": config.seed}
    lines = [f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in changed.items()]
    return 'json.loads(r"""{' + ",\n".join(lines) + '}""")'


def code_sha() -> str:
    """Return 12 hex digits that identify this trainer's sources. Comments, docstrings and layout do not count."""
    return hashlib.sha256(_as_json(_sources())).hexdigest()[:12]


@cache
def _payload() -> str:
    """Return the shipped sources, compressed, as lines of text."""
    shipped = {path: source for path, source in _sources().items() if path not in NOT_SHIPPED}
    compressed = lzma.compress(_as_json(shipped), check=lzma.CHECK_CRC32, filters=_LZMA)
    return "\n".join(textwrap.wrap(base64.b85encode(compressed).decode(), 4096))


@cache
def _sources() -> dict[str, str]:
    """Return path -> stripped source of every file of this package."""
    sources = {}
    for path in sorted(PACKAGE_DIR.rglob("*")):
        relative = path.relative_to(PACKAGE_DIR.parent).as_posix()
        if path.suffix == ".py":
            sources[relative] = strip_source(path.read_text(encoding="utf-8"))
        elif path.suffix == ".yaml":
            sources[relative] = path.read_text(encoding="utf-8")
    return sources


def _as_json(sources: dict[str, str]) -> bytes:
    return json.dumps(sources, separators=(",", ":"), sort_keys=True).encode()


def code_bytes(config: Config | None = None) -> int:
    """Return the size of the packed trainer in bytes, which `artifact_bytes` includes."""
    return len(bundle_code(config))


def strip_source(source: str) -> str:
    """Return the same program without comments and docstrings, indented by one space."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        node.body = [statement for statement in node.body if not _is_docstring(statement)]
        if not node.body and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]
    stripped = ast.unparse(ast.fix_missing_locations(tree))
    if '"""' in stripped or "'''" in stripped:  # spaces in a text of several lines are not indentation
        return stripped
    return re.sub(r"^(?: {4})+", lambda spaces: " " * (len(spaces[0]) // 4), stripped, flags=re.M)


def _is_docstring(statement: ast.stmt) -> bool:
    """Return whether this is a text alone: the docstring of a module, class, function, field or constant."""
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_constant and isinstance(statement.value.value, str)  # type: ignore[attr-defined]
