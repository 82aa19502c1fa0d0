"""Every model of a plan, built for real on the meta device before anything is launched.

The building is the trainer's (`trainer.run.preflight`), in one process of its own for all distinct models, since pgray never
loads torch; it takes seconds, so start it early and wait late. What a model holds follows from its config and the code, so
it is remembered in the user's cache folder under both.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from pgray.planning.planner import Plan
from pgray.spec.expand import Arm
from trainer.config import Config
from trainer.errors import InputError
from trainer.model.shapes import num_params
from trainer.records.files import read_json, write_json
from trainer.records.fingerprint import digest
from trainer.run.bundle import code_sha


@dataclass(frozen=True)
class ModelFacts:
    """`tensors`: name, class (`control` = never quantized) and shape of every parameter, in the model's order."""

    num_params: int
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]


def start_model_check(plan: Plan) -> "ModelCheck":
    """Begin to build the model of every arm; `wait` on what comes back. Leaving a `with` block cancels it."""
    return ModelCheck(plan.expansion.arms, plan.sweep.origin)


def check_models(plan: Plan) -> dict[str, ModelFacts]:
    """Build the model of every arm: arm -> what it holds. Errors as in `ModelCheck.wait`."""
    return start_model_check(plan).wait()


class ModelCheck:
    """A check under way.

    Args:
        arms: whose models to build; `place` names the sweep file in errors.
        cache: folder of what earlier checks found; None for the user's own.
    """

    def __init__(self, arms: Iterable[Arm], place: str, cache: Path | None = None) -> None:
        self._arms, self._place = tuple(arms), place
        self._cache = cache or cache_folder()
        self._keys = {arm.name: model_key(arm.config) for arm in self._arms}
        self._found: dict[str, dict[str, Any]] = {}
        asked: dict[str, dict[str, Any]] = {}
        for arm in self._arms:
            key = self._keys[arm.name]
            if known := read_json(self._file(key)):
                self._found[key] = known
            else:
                asked[key] = _sections(arm.config)
        self._asked = tuple(asked)
        self._process: subprocess.Popen[str] | None = None
        if asked:
            self._process = self._start(json.dumps(asked))

    def _start(self, asked: str) -> "subprocess.Popen[str]":
        self._output, self._errors = _temporary(), _temporary()  # files, so that nobody must read while it runs
        with _temporary() as question:
            question.write(asked)
            question.seek(0)
            command = [sys.executable, "-m", "trainer.run.preflight"]
            return subprocess.Popen(command, stdin=question, stdout=self._output, stderr=self._errors, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def wait(self) -> dict[str, ModelFacts]:
        """Arm -> what its model holds.

        Raises:
            InputError: names the first arm whose model cannot be built, and why.
            RuntimeError: the check itself failed, or the model has other parameters than `trainer.model.shapes` counts.
        """
        if self._process is not None:
            self._collect(self._process)
            self._process = None
        facts = {}
        for arm in self._arms:
            place = f"{self._place}: arm {arm.name}"
            found = self._found[self._keys[arm.name]]
            if "error" in found:
                raise InputError(place, "model", "cannot be built", found["error"])
            if found["num_params"] != num_params(arm.config):
                counted = f"the model has {found['num_params']} parameters, trainer/model/shapes.py counts"
                raise RuntimeError(f"{place}: {counted} {num_params(arm.config)}; bring parameter_shapes up to date")
            tensors = [(t["name"], t["tensor_class"], tuple(t["shape"])) for t in found["tensors"]]
            facts[arm.name] = ModelFacts(found["num_params"], tuple(tensors))
        return facts

    def cancel(self) -> None:
        """End the check without its answer; nothing to do after `wait`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._output.close()
            self._errors.close()

    def _collect(self, process: "subprocess.Popen[str]") -> None:
        code = process.wait()
        with self._output as output, self._errors as errors:
            output.seek(0)
            errors.seek(0)
            if code:
                last = (errors.read().strip().splitlines() or ["no message"])[-1]
                raise RuntimeError(f"python -m trainer.run.preflight ended with code {code}: {last}")
            answer = json.load(output)
        for key in self._asked:
            self._found[key] = answer[key]
            if "error" not in answer[key]:
                with suppress(OSError):  # a home that cannot be written costs seconds, nothing more
                    write_json(self._file(key), answer[key])

    def _file(self, key: str) -> Path:
        return self._cache / f"{key}.json"


def model_key(config: Config) -> str:
    """Identity of a model's structure: its config, and the code that builds it."""
    return digest([code_sha(), _sections(config)], 24)


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/pgray/models`, by default `~/.cache/pgray/models`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "pgray" / "models"


def _sections(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", include={"model", "recurrence"})


def _temporary() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8")
