"""Build every model of a plan on torch's meta device, before anything is launched.

pgray never loads torch, so one subprocess (`trainer/run/preflight.py`) builds all distinct models. It takes seconds: start it
early and wait late. The answers are cached in the user's cache folder, since they follow from the config and the code.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from pgray.planning.past_trials import model_part
from pgray.spec.expand import Arm
from trainer.config import Config
from trainer.errors import InputError
from trainer.model.shapes import num_params
from trainer.records.files import read_model, user_cache, write_json
from trainer.records.fingerprint import digest
from trainer.run.bundle import code_sha


class TensorFacts(BaseModel):
    """One parameter. `tensor_class`: `control` = never quantized."""

    name: str
    tensor_class: str
    shape: tuple[int, ...]


class ModelFacts(BaseModel):
    """The parameters of a model, in the model's order; or the error that prevents building it."""

    num_params: int = 0
    tensors: tuple[TensorFacts, ...] = ()
    error: str | None = None


_ANSWER = TypeAdapter(dict[str, ModelFacts])


class ModelCheck(AbstractContextManager["ModelCheck"]):
    """A running check. Leaving the `with` block cancels it.

    Args:
        arms: their models are built.
        origin: names the sweep file in errors.
        cache: folder with the answers of earlier checks; None = `$XDG_CACHE_HOME/pgray/models`.
    """

    def __init__(self, arms: Iterable[Arm], origin: str, cache: Path | None = None) -> None:
        self._arms, self._origin, self._cache = tuple(arms), origin, cache or user_cache() / "models"
        self._keys = {arm.name: model_key(arm.config) for arm in self._arms}
        self._facts: dict[str, ModelFacts] = {}  # by model key
        to_build: dict[str, dict[str, Any]] = {}
        for arm in self._arms:
            key = self._keys[arm.name]
            if facts := read_model(ModelFacts, self._file(key)):
                self._facts[key] = facts
            else:
                to_build[key] = model_part(arm.config)
        self._request = json.dumps(to_build)
        self._process = self._start() if to_build else None

    def _start(self) -> "subprocess.Popen[str]":
        # it loads torch before it reads stdin
        command, pipe = [sys.executable, "-m", "trainer.run.preflight"], subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def wait(self) -> dict[str, ModelFacts]:
        """Return the facts of each arm's model.

        Raises:
            InputError: the first arm whose model cannot be built, and why.
            RuntimeError: the check itself failed, or `trainer/model/shapes.py` counts other parameters than the model has.
        """
        if self._process is not None:
            output, errors = self._process.communicate(self._request)
            if code := self._process.returncode:
                last = (errors.strip().splitlines() or ["no message"])[-1]
                raise RuntimeError(f"python -m trainer.run.preflight ended with code {code}: {last}")
            self._process = None
            answer = _ANSWER.validate_json(output)
            self._facts |= answer
            for key, facts in answer.items():
                if facts.error is None:
                    with suppress(OSError):  # without a writable cache folder the next check only takes longer
                        write_json(self._file(key), facts.model_dump(mode="json"))
        found = {arm.name: self._facts[self._keys[arm.name]] for arm in self._arms}
        for arm in self._arms:
            where, facts = f"{self._origin}: arm {arm.name}", found[arm.name]
            if facts.error is not None:
                raise InputError(where, "model", "cannot be built", facts.error)
            if facts.num_params != num_params(arm.config):
                counted = f"the model has {facts.num_params} parameters, trainer/model/shapes.py counts"
                raise RuntimeError(f"{where}: {counted} {num_params(arm.config)}; bring parameter_shapes up to date")
        return found

    def cancel(self) -> None:
        """End the subprocess without an answer; does nothing after `wait`."""
        if self._process is not None:
            with self._process as process:
                process.kill()
            self._process = None

    def _file(self, key: str) -> Path:
        return self._cache / f"{key}.json"


def model_key(config: Config) -> str:
    """Identify a model's structure by its config and the code that builds it."""
    return digest([code_sha(), model_part(config)], 24)
