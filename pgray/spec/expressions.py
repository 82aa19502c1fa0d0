"""Conditions over a config, as in `where: ["model.layers <= 4 or quant.bits.mlp == 8"]`: a small, safe subset of Python.

Allowed are dotted config keys, numbers, text, lists, true/false/null, comparisons (also chained, `in` and `not in`),
and/or/not and arithmetic with numbers: text and lists could be repeated until they fill the memory. Python's parser reads
the text; it is never evaluated as Python code.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import config_keys

_OPERATORS: dict[type[ast.cmpop | ast.operator | ast.unaryop], Callable[..., Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Not: operator.not_, ast.USub: operator.neg,
}  # fmt: skip
_MAX_CHARS = 1_000  # of one condition: numbers that are multiplied stay as short as their text
_NAMES = {"true": True, "false": False, "null": None}
_KEYS = frozenset(config_keys())
_Evaluate = Callable[[Config], Any]


class Condition:
    """One condition. The constructor checks its syntax and its keys.

    Args:
        text: the condition as written.
        origin, key: the file and the key of the sweep that contain it, for errors.
    Raises:
        InputError: `text` is not a condition, or names an unknown config key.
    """

    def __init__(self, text: str, origin: str, key: str) -> None:
        self.text, self._origin, self._key = text, origin, key
        if len(text) > _MAX_CHARS:
            self.text = f"{text[:40]}..."
            raise self._error(f"has {len(text):,} characters, more than {_MAX_CHARS:,}; write several conditions")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
            self._evaluate = self._compile(self._tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self._error("not a condition; write for instance model.layers <= 4") from None

    @property
    def keys(self) -> frozenset[str]:
        """The config keys that the condition names."""
        nodes = (node for node in ast.walk(self._tree) if isinstance(node, (ast.Name, ast.Attribute)))
        return frozenset(map(ast.unparse, nodes)) & _KEYS

    def holds(self, config: Config) -> bool:
        """Return whether `config` meets the condition. Raises InputError if it compares values of different types."""
        try:
            return bool(self._evaluate(config))
        except RecursionError:
            raise self._error("is nested too deeply; write several conditions") from None
        except (TypeError, ArithmeticError) as error:
            raise self._error(f"cannot be evaluated ({error}); compare values of the same type") from None

    def _error(self, fix: str) -> InputError:
        return InputError(self._origin, self._key, self.text, fix)

    def _compile(self, node: ast.expr) -> _Evaluate:
        match node:
            case ast.Constant(value=constant):
                return lambda _: constant
            case ast.Name() | ast.Attribute():
                return self._compile_name(ast.unparse(node))
            case ast.BoolOp(op=op, values=values):
                parts, combine = list(map(self._compile, values)), all if isinstance(op, ast.And) else any
                return lambda config: combine(part(config) for part in parts)
            case ast.List(elts=values) | ast.Tuple(elts=values):
                parts = list(map(self._compile, values))
                return lambda config: [part(config) for part in parts]
            case ast.UnaryOp(op=op, operand=value) if type(op) in _OPERATORS:
                apply, inner = _OPERATORS[type(op)], self._compile(value)
                if isinstance(op, ast.Not):
                    return lambda config: apply(inner(config))
                return lambda config: apply(_number(inner(config)))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                apply, first, second = _OPERATORS[type(op)], self._compile(left), self._compile(right)
                return lambda config: apply(_number(first(config)), _number(second(config)))
            case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(op) in _OPERATORS for op in ops):
                parts, compares = list(map(self._compile, (left, *rights))), [_OPERATORS[type(op)] for op in ops]

                def compare_all(config: Config) -> bool:
                    values = [part(config) for part in parts]
                    return all(compare(*pair) for compare, *pair in zip(compares, values, values[1:], strict=False))

                return compare_all
        raise self._error(f"{ast.unparse(node)} cannot be used; use keys, values, comparisons, and, or, not")

    def _compile_name(self, key: str) -> _Evaluate:
        if key in _NAMES:
            return lambda _: _NAMES[key]
        if key not in _KEYS:
            raise self._error(f"{key} is not a config key; see trainer/config.py for the keys")

        def look_up(config: Config) -> Any:
            value = operator.attrgetter(key)(config)
            return list(value) if isinstance(value, tuple) else value  # a list in a condition is a list

        return look_up


def _number(value: Any) -> int | float:
    """Return the value. Raises TypeError for anything else than a number."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"arithmetic with {type(value).__name__}")
    return value
