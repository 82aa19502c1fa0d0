"""Builds configs from presets and dotted overrides. Errors name the origin, the key, the value and the fix."""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.yamlfile import read_yaml
from trainer.run.config import Machine
from trainer.section import RuleError, Section

PRESETS_DIR = Path(__file__).parent

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
        raise InputError(origin, "preset", name, f"unknown preset; use one of {', '.join(preset_names())} or a path")
    path = PRESETS_DIR / f"{name}.yaml" if is_named else Path(name)
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise InputError(str(path), "document", type(raw).__name__, "a preset is a mapping with about, machine, set")
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
            raise InputError(origin, key, value, f"unknown key{_did_you_mean(key)}")
        *parents, leaf = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return validate(Config, nested, origin)


def _did_you_mean(key: str) -> str:
    near = difflib.get_close_matches(key, _LEAVES, n=1, cutoff=0.5)
    if not near:
        tail = key.rsplit(".", 1)[-1]
        near = [k for k in sorted(_LEAVES) if k.rsplit(".", 1)[-1] == tail][:1]
    return f"; did you mean {near[0]}?" if near else "; see trainer/config.py for the keys"


_FIXES = {
    "extra_forbidden": "unknown key; remove it or check its spelling",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "finite_number": "must be finite",
    "missing": "missing; add it",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
}


def validate(model: type[_Model], raw: object, origin: str, prefix: str = "", strict: bool | None = None) -> _Model:
    """Return `raw` as a model. Raises its first problem as an InputError; `prefix` comes before the key."""
    try:
        return model.model_validate(raw, strict=strict)
    except ValidationError as error:
        raise input_error(error, origin, prefix) from None


def input_error(error: ValidationError, origin: str, prefix: str = "") -> InputError:
    """Return the first problem of a pydantic error as an InputError."""
    detail = error.errors(include_url=False)[0]
    parts = [str(part) for part in (prefix, *detail["loc"]) if part not in ("", "function-after")]
    value, broken = detail["input"], detail.get("ctx", {}).get("error")
    if isinstance(broken, RuleError):
        return InputError(origin, ".".join([*parts, broken.key]), broken.value, broken.fix)
    if detail["type"] == "value_error":
        value = "invalid" if isinstance(value, (dict, BaseModel)) else value
    elif isinstance(value, (dict, list)):
        value = json.dumps(value, default=str)[:80]
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return InputError(origin, ".".join(parts) or "document", value, _FIXES.get(detail["type"], message))
