"""Exceptions that carry the FailureKind of a failed run.

PgrayError
|- InputError   user_error   a config or sweep value is wrong; raised before anything is launched
|- DataError    data_error   a shard or tokenizer is missing, broken or does not fit
|- DivergedError  diverged   the loss is not finite
'- DeadTechniqueError  user_error   a technique is switched on and measured to have no effect
"""

from typing import Literal

FailureKind = Literal["user_error", "data_error", "oom", "diverged", "timeout", "infra", "preempted", "lost"]


class PgrayError(Exception):
    kind: FailureKind = "infra"


class InputError(PgrayError):
    """A wrong input, in one line that names its origin, the key, the value and the fix."""

    kind: FailureKind = "user_error"

    def __init__(self, origin: str, key: str, value: object, fix: str) -> None:
        self.origin, self.key, self.value, self.fix = origin, key, value, fix
        shown = repr(value) if not isinstance(value, str) or not value else value
        super().__init__(" ".join(f"{origin}: {key}: {shown}: {fix}".split()))


class DataError(PgrayError):
    """An unusable shard or tokenizer, in one line that names the file, the problem and the fix."""

    kind: FailureKind = "data_error"

    def __init__(self, path: object, problem: str, fix: str) -> None:
        self.path, self.problem, self.fix = path, problem, fix
        super().__init__(" ".join(f"{path}: {problem}: {fix}".split()))


class DivergedError(PgrayError):
    kind: FailureKind = "diverged"


class DeadTechniqueError(PgrayError):
    kind: FailureKind = "user_error"
