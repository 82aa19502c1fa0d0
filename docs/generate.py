"""Write docs/columns.md, docs/config.md and the code in docs/adding_a_technique.md; `--check` only compares them.

Columns come from `results/schema.py`. Config keys come from the models in `trainer/config.py`: the type and default of a
field, the comment beside it, and the value in each preset.
"""

import ast
import inspect
import json
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from results import schema
from results.analysis import verdicts
from trainer import config
from trainer.presets.resolve import load_preset, preset_names
from trainer.quant.codecs import codec_names

HERE = Path(__file__).parent
EXCERPT = re.compile(r"(<!-- file: (?P<path>\S+)(?: (?P<name>\w+))? -->\n```\w+\n).*?(```)", re.DOTALL)


def comments(model: type[BaseModel]) -> dict[str, str]:
    """Return field -> the comment on the field's line, inherited fields included."""
    found = {}
    for base in reversed(model.__mro__):
        if not (issubclass(base, BaseModel) and base is not BaseModel):
            continue
        source = inspect.getsource(base)
        lines = source.splitlines()
        for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                _, _, comment = lines[(node.end_lineno or node.lineno) - 1].partition("  # ")
                found[node.target.id] = comment.strip()
    return found


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield every model with fields that are not sections, and the prefix of their keys."""
    if any(not _is_model(field) for field in model.model_fields.values()):
        yield prefix, model
    for name, field in model.model_fields.items():
        if _is_model(field):
            yield from sections(typing.cast(type[BaseModel], field.annotation), f"{prefix}{name}.")


def _is_model(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def type_text(field: FieldInfo) -> str:
    """Return the allowed values in words: `0..1`, `a or b`, `whole number ≥ 1`."""
    bounds = {name: getattr(m, name) for m in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(m, name)}
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = ", ".join(f"{signs[name]} {value:,}" for name, value in bounds.items())
    names = _names(field.annotation)
    checks = [getattr(getattr(m, "func", None), "__name__", "") for m in field.metadata]
    if "_bits" in checks:
        names = "2..8 or 16"
    if "check_codec_name" in checks:
        names = " or ".join(f"`{name}`" for name in codec_names())
    return f"{names} {limits}".strip()


def _names(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {_names(arguments[0])}"
    if arguments:
        return " or ".join(map(_names, arguments))
    words = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(annotation, str(annotation))


def shown(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{json.dumps(value)}`" if value != "" else "empty"


def config_page() -> str:
    presets = {name: load_preset(name) for name in preset_names()}
    lines = [
        "# Config keys",
        "",
        "<!-- Generated from trainer/config.py and trainer/presets/ by `python docs/generate.py`. Do not edit. -->",
        "",
        "Keys of `set:`, of arms and of `--set`. An empty preset column means the default. Units are in the names: `_s`",
        "seconds, `_frac` share of the run.",
        "",
    ]
    lines += [f"- `{p.name}`: {p.overrides and about(p.about)}" for p in presets.values()]
    for prefix, model in sections(config.Config):
        lines += ["", f"## {prefix.rstrip('.') or 'top level'}", ""]
        if model.__doc__ and model is not config.Config:
            lines += [" ".join(model.__doc__.split()), ""]
        lines += [
            f"| key | value | default | {' | '.join(presets)} | remark |",
            f"|---|---|---|{'---|' * len(presets)}---|",
        ]
        for name, field in model.model_fields.items():
            if _is_model(field):
                continue
            key = prefix + name
            set_to = [shown(p.overrides[key]) if key in p.overrides else "" for p in presets.values()]
            remark = comments(model).get(name, "").replace("|", r"\|")
            cells = [f"`{key}`", type_text(field), shown(field.get_default(call_default_factory=True)), *set_to, remark]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def technique_page() -> str:
    """Return docs/adding_a_technique.md with the current text of the files, or of the one class, that it shows."""

    def excerpt(match: re.Match[str]) -> str:
        source = (HERE.parent / match["path"]).read_text(encoding="utf-8")
        if match["name"]:
            nodes = [node for node in ast.parse(source).body if getattr(node, "name", "") == match["name"]]
            source = f"{ast.get_source_segment(source, nodes[0])}\n"
        return f"{match[1]}{source}{match[4]}"

    return EXCERPT.sub(excerpt, (HERE / "adding_a_technique.md").read_text(encoding="utf-8"))


def about(text: str) -> str:
    return " ".join(text.split())


def main(arguments: list[str]) -> int:
    stale = []
    pages = {
        "columns.md": schema.as_markdown(),
        "verdicts.md": verdicts.as_markdown(),
        "config.md": config_page(),
        "adding_a_technique.md": technique_page(),
    }
    for name, page in pages.items():
        path = HERE / name
        if path.is_file() and path.read_text(encoding="utf-8") == page:
            continue
        if "--check" in arguments:
            stale.append(f"docs/{name}")
        else:
            path.write_text(page, encoding="utf-8")
            print(f"wrote docs/{name}")
    if stale:
        print(f"{' and '.join(stale)} no longer match the code: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
