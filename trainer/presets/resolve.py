"""Builds configs from presets and dotted overrides. Errors name the origin, the key, the value and the fix."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError

from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.yamlfile import read_yaml
from trainer.records.text import kind_of, nearest, suggestion
from trainer.run.config import Machine
from trainer.section import RuleError, Section

PRESETS_DIR = Path(__file__).parent

_MOST_VALUE_CHARS = 80

_Model = TypeVar("_Model", bound=BaseModel)


class PresetFile(Section):
    """A base configuration and the machine it is meant for, as written."""

    about: str = ""
    machine: Machine = Machine()
    set: dict[str, Any] = Field(default_factory=dict)


class Preset(PresetFile):
    """A preset, named after its file."""

    name: str

    @property
    def overrides(self) -> dict[str, Any]:
        """Dotted key -> value, over the defaults of Config."""
        return dict(flatten(self.set))


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS_DIR.glob("*.yaml"))


def load_preset(name: str, origin: str = "--preset") -> Preset:
    """Return the preset called `name`, or the one in the file of that path. Raises InputError with the choices."""
    is_named = name in preset_names()
    if not is_named and not name.endswith((".yaml", ".yml")):
        raise InputError(
            origin, "preset", name, f"unknown preset; {suggestion(name, preset_names())} (or the path of a .yaml file)"
        )
    path = PRESETS_DIR / f"{name}.yaml" if is_named else Path(name)
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise InputError(str(path), "document", kind_of(raw), "a preset is a mapping with about, machine, set")
    file = validate(PresetFile, {key: value for key, value in raw.items() if value is not None}, str(path))
    preset = Preset(name=path.stem, **dict(file))
    build_config(preset.overrides, str(path))
    return preset


def config_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a config, in order."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from config_keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the (dotted key, value) pairs of a nested or dotted mapping. The value of a known config key is not split."""
    for key, value in mapping.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and dotted not in _LEAVES:
            yield from flatten(value, f"{dotted}.")
        else:
            yield dotted, value


_LEAVES = frozenset(config_keys())


def build_config(overrides: Mapping[str, Any], origin: str) -> Config:
    """Return the defaults with overrides applied.

    Args:
        overrides: key -> value, dotted or nested.
        origin: the file and arm to name in errors.
    Raises:
        InputError: unknown key (with the nearest known one), wrong type, or a value that breaks a rule.
    """
    nested: dict[str, Any] = {}
    for key, value in flatten(overrides):
        if key not in _LEAVES:
            raise InputError(origin, key, value, _why_no_key(key, value))
        *parents, leaf = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return validate(Config, nested, origin)


def _why_no_key(key: str, value: object) -> str:
    """Return what is wrong with a key that no config has."""
    below = [leaf.removeprefix(f"{key}.") for leaf in config_keys() if leaf.startswith(f"{key}.")]
    if below:
        return f"a section, not a value; set its keys, such as {key}.{below[0]}: {value}; they are {', '.join(below)}"
    tail = key.rsplit(".", 1)[-1]
    same_tail = [leaf for leaf in sorted(_LEAVES) if leaf.rsplit(".", 1)[-1] == tail]
    near = nearest(key, _LEAVES, 0.8) or nearest(key, same_tail, 0.0) or nearest(key, _LEAVES)
    return f"unknown key; did you mean {near}?" if near else "unknown key; docs/config.md lists the keys"


_FIXES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "string_pattern_mismatch": "use lower-case letters, digits and hyphens only",  # the name of a sweep has the only one
    "finite_number": "must be finite",
    "missing": "add it",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
}


def validate(model: type[_Model], raw: object, origin: str, prefix: str = "", strict: bool | None = None) -> _Model:
    """Return `raw` as a model. Raises its first problem as an InputError; `prefix` comes before the key."""
    try:
        return model.model_validate(raw, strict=strict)
    except ValidationError as error:
        raise input_error(error, origin, prefix, model) from None


def input_error(
    error: ValidationError, origin: str, prefix: str = "", model: type[BaseModel] | None = None
) -> InputError:
    """Return the first problem of a pydantic error as an InputError; an unknown key before a missing one.

    Args:
        model: suggests a key for an unknown one.
    """
    details = error.errors(include_url=False)
    detail = next((detail for detail in details if detail["type"] == "extra_forbidden"), details[0])
    loc = [str(part) for part in detail["loc"] if part not in ("", "function-after")]
    if detail["type"] == "extra_forbidden" and detail["loc"][-1] == "":
        loc.append("''")  # an empty key of the file; other empty parts come from pydantic
    parts = [prefix, *loc] if prefix else loc
    value, broken = detail["input"], detail.get("ctx", {}).get("error")
    if isinstance(broken, RuleError):
        return InputError(origin, ".".join([*parts, broken.key]), broken.value, broken.fix)
    if detail["type"] == "extra_forbidden":
        keys = _keys_at(model, loc[:-1])
        fix = f"unknown key; {suggestion(loc[-1], keys)}" if keys else "unknown key; remove it or check its spelling"
        return InputError(origin, ".".join(parts), _shown(value), fix)
    if parts[-1:] == ["[key]"]:  # pydantic's place of a wrong key in a mapping
        parts = parts[:-2]
    if detail["type"] == "missing":
        value = "not given"
    elif detail["type"] == "value_error":
        value = "invalid" if isinstance(value, (dict, BaseModel)) else value
    return InputError(origin, ".".join(parts) or "document", _shown(value), _fix(detail["type"], detail["msg"], value))


def _fix(kind: str, message: str, value: object) -> str:
    """Return what to do about a pydantic error."""
    fix = _FIXES.get(kind, message.removeprefix("Value error, ").replace("Input should be", "must be"))
    if kind == "literal_error" and isinstance(value, str):
        near = nearest(value, re.findall(r"'([^']+)'", message))
        return f"did you mean {near}?" if near else fix
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and value.is_integer():
        return f"{fix}; write {value:.0f}"
    is_quoted = isinstance(value, str) and (value.isdecimal() if kind == "int_type" else kind == "float_type")
    return f"{fix}; write {value} without quotes" if is_quoted and _is_number(str(value)) else fix


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _shown(value: object) -> object:
    """Return what a message shows of a value: not a whole file, and a number in quotes with them."""
    if value is None:
        return "null"
    if isinstance(value, str) and _is_number(value):
        return repr(value)
    if not isinstance(value, (dict, list)):
        return value
    text = json.dumps(value, default=str)
    kind = "a mapping of" if isinstance(value, dict) else "a list of"
    return text if len(text) <= _MOST_VALUE_CHARS else f"{kind} {len(value)}"


def _keys_at(model: type[BaseModel] | None, loc: Sequence[str]) -> list[str]:
    """Return the keys that the section at this place may have; [] if it cannot be found."""
    for part in loc:
        if model is None:
            break
        field = model.model_fields.get(part)
        if field is not None:  # else the index in a list, or a key of a mapping: the section stays
            model = next(_models_in(field.annotation), None)
    return list(model.model_fields) if model else []


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections in a type such as `list[Section] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
