"""Facts about the numeric columns of a record, written beside its fields: `Annotated[float, Metric(...)]`.

Tables, plots, kill rules, searches, the importers and the packed script read them through `METRICS` in
`trainer/records/results.py`, so that a new metric is one field there and the code that measures it.
"""

import types
from dataclasses import dataclass
from functools import reduce
from typing import Any, get_args

from pydantic import BaseModel

_LOSS_UNITS = ("bits per byte", "nats per token")
_IDENTITY = ("seed", "schema_version")  # numbers that measure nothing


@dataclass(frozen=True)
class Metric:
    """What code outside the trainer must know about one numeric column.

    unit: empty for a count. label: its name in headings and charts; a column without one appears only in the full table.
    spec: format of a value in a list of results. is_score: measured on the unpacked artifact, so that a submission may
    claim it; a later field is the better score. needs: config key that switches the measurement on. evaluated_with:
    further columns that must agree before two values can be compared.
    """

    unit: str = ""
    label: str = ""
    spec: str = ""
    is_lower_better: bool = True
    is_score: bool = False
    needs: str = ""
    evaluated_with: tuple[str, ...] = ()

    @property
    def is_loss(self) -> bool:
        """Whether a difference is a difference of loss, so that the challenge's rule in nats applies."""
        return self.unit in _LOSS_UNITS

    def is_measured(self, config: object) -> bool:
        """Return whether a trial with this `trainer.config.Config` measures the metric."""
        return not self.needs or bool(reduce(getattr, self.needs.split("."), config))


def column_types(record: type[BaseModel]) -> dict[str, type]:
    """Return the type (int, float, bool or str) of every field that is a single value, null allowed.

    The record's own fields come first, then inherited ones.
    """
    found: dict[str, type] = {}
    for name in sorted(record.model_fields, key=lambda name: name not in record.__annotations__):
        kind = record.model_fields[name].annotation
        members = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        kinds: set[Any] = set(members) - {types.NoneType}
        if kinds <= {int, float, bool, str}:
            found[name] = kinds.pop()
    return found


def metrics_of(record: type[BaseModel]) -> dict[str, Metric]:
    """Return the facts about every numeric field of a record, in order. Without facts, neither direction is better."""
    numeric = [name for name, kind in column_types(record).items() if kind in (int, float) and name not in _IDENTITY]
    stated = {n: [m for m in record.model_fields[n].metadata if isinstance(m, Metric)] for n in numeric}
    return {name: next(iter(facts), Metric(is_lower_better=False)) for name, facts in stated.items()}
