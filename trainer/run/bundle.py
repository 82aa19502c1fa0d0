"""The challenge counts code: the trainer as one self-contained Python file, and its size.

The file holds the sources of this package (docstrings and comments stripped, presets included) in one lzma stream and
unpacks them into a temporary folder: `python train_gpt.py --help` works anywhere, `torchrun train_gpt.py ...` trains.
With a config in it, readable at its top, it repeats that trial (`run/reproduce.py`): this is what a submission ships, so this
is what a trial's `code_bytes` counts.
"""

import ast
import base64
import hashlib
import json
import lzma
import textwrap
from functools import cache
from pathlib import Path

from trainer.config import Config

PACKAGE_DIR = Path(__file__).resolve().parents[1]

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
    """The packed trainer: for one trial, or without a config for any job file (`trainer/__main__.py`).

    Deterministic: equal sources give equal bytes.
    """
    module = "__main__" if config is None else "run.reproduce"
    code = _BOOTSTRAP.replace("{module}", module).replace("{payload}", _payload())
    return code.replace("{config}", "None" if config is None else _literal(config)).encode()


def _literal(config: Config) -> str:
    """What differs from the defaults, and the seed, as a Python expression. JSON has no three quotes in a row."""
    changed = config.model_dump(mode="json", exclude_defaults=True) | {"seed": config.seed}
    lines = [f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in changed.items()]
    return 'json.loads(r"""{' + ",\n".join(lines) + '}""")'


def code_sha() -> str:
    """Which program this trainer is: 12 hex digits over its sources. Comments, docstrings and layout do not count."""
    return hashlib.sha256(_sources()).hexdigest()[:12]


@cache
def _payload() -> str:
    """The sources, compressed, as lines of text."""
    payload = base64.b85encode(lzma.compress(_sources(), preset=9 | lzma.PRESET_EXTREME)).decode()
    return "\n".join(textwrap.wrap(payload, 4096))


@cache
def _sources() -> bytes:
    """Path -> stripped source of every file of this package, as JSON."""
    sources = {}
    for path in sorted(PACKAGE_DIR.rglob("*")):
        relative = path.relative_to(PACKAGE_DIR.parent).as_posix()
        if path.suffix == ".py":
            sources[relative] = strip_source(path.read_text(encoding="utf-8"))
        elif path.suffix == ".yaml":
            sources[relative] = path.read_text(encoding="utf-8")
    return json.dumps(sources, separators=(",", ":"), sort_keys=True).encode()


def code_bytes(config: Config | None = None) -> int:
    """Size of the packed trainer in bytes: the code's part of `artifact_bytes`."""
    return len(bundle_code(config))


def strip_source(source: str) -> str:
    """The same program without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        node.body = [statement for statement in node.body if not _is_docstring(statement)]
        if not node.body and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree))


def _is_docstring(statement: ast.stmt) -> bool:
    """Return whether this is a text alone: the docstring of a module, class, function, field or constant."""
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_constant and isinstance(statement.value.value, str)  # type: ignore[attr-defined]
