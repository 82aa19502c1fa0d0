"""Conditions over a config, as in `where: ["model.layers <= 4 or quant.bits.mlp == 8"]`: a small, safe part of Python.

Dotted config keys, numbers, text, true/false/null, comparisons (chains and `in [..]` too), and/or/not and arithmetic.
No calls, no names but config keys. The text is parsed by Python's own parser and walked here; it is never evaluated.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import config_keys

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_NAMES = {"true": True, "false": False, "null": None}
_KEYS = frozenset(config_keys())


class Condition:
    """One condition, checked for form and for known keys when it is made.

    Args:
        text: the condition as written.
        origin, key: where it stands, for errors.
    Raises:
        InputError: it is not a condition, or names a key that no config has.
    """

    def __init__(self, text: str, origin: str, key: str) -> None:
        self.text, self._origin, self._key = text, origin, key
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError):
            raise self._error("not a condition; write for instance model.layers <= 4") from None
        self._check(self._tree)

    @property
    def keys(self) -> frozenset[str]:
        """The config keys it names."""
        nodes = (node for node in ast.walk(self._tree) if isinstance(node, (ast.Name, ast.Attribute)))
        return frozenset(map(ast.unparse, nodes)) & _KEYS

    def holds(self, config: Config) -> bool:
        """Whether the condition is true of `config`. Raises InputError where it compares what cannot be compared."""
        try:
            return bool(self._value(self._tree, config))
        except (TypeError, ArithmeticError) as error:
            raise self._error(f"cannot be decided ({error}); compare like with like") from None

    def _error(self, fix: str) -> InputError:
        return InputError(self._origin, self._key, self.text, fix)

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.Constant():
                pass
            case ast.Name() | ast.Attribute():
                key = ast.unparse(node)
                if key not in _NAMES and key not in _KEYS:
                    raise self._error(f"{key} is not a config key; see trainer/config.py for the keys")
            case ast.BoolOp(values=values) | ast.List(elts=values) | ast.Tuple(elts=values):
                for value in values:
                    self._check(value)
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                self._check(operand)
            case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(op) in _COMPARE for op in ops):
                for value in (left, *rights):
                    self._check(value)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                self._check(left)
                self._check(right)
            case _:
                raise self._error(f"{ast.unparse(node)} cannot be used; use keys, values, comparisons, and, or, not")

    def _value(self, node: ast.expr, config: Config) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name() | ast.Attribute():
                key = ast.unparse(node)
                return _NAMES[key] if key in _NAMES else _look_up(config, key)
            case ast.BoolOp(op=op, values=values):
                results = (self._value(value, config) for value in values)
                return all(results) if isinstance(op, ast.And) else any(results)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._value(operand, config)
            case ast.UnaryOp(operand=operand):
                return -self._value(operand, config)
            case ast.List(elts=values) | ast.Tuple(elts=values):
                return [self._value(value, config) for value in values]
            case ast.BinOp(left=left, op=op, right=right):
                return _ARITHMETIC[type(op)](self._value(left, config), self._value(right, config))
            case ast.Compare(left=left, ops=ops, comparators=rights):
                values = [self._value(value, config) for value in (left, *rights)]
                pairs = zip(ops, values, values[1:], strict=False)
                return all(_COMPARE[type(op)](first, second) for op, first, second in pairs)
        raise AssertionError(f"{ast.dump(node)} passed _check")


def _look_up(config: Config, key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        assert isinstance(node, BaseModel)
        node = getattr(node, name)
    return list(node) if isinstance(node, tuple) else node
