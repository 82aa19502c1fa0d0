"""Loads the trials of one run, or of several side by side, with the labels of their arms."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from results.loading.arm_labels import labelled
from results.loading.runs import load

Runs = str | Path | Sequence[str | Path]


def load_labelled(runs: Runs, control: str | None) -> tuple[pd.DataFrame, pd.DataFrame, str | None]:
    """Return the trials as stored, the same with labels for arms, and the label of `control`.

    Arms of several runs are named `run/arm`, so that arms of the same name stay apart; a control without a run is looked for
    in the runs' order, and the default is the control of the first run.
    """
    folders = [runs] if isinstance(runs, (str, Path)) else list(runs)
    if len(folders) == 1:
        stored = load(folders[0])
        return stored, *labelled(stored, control)
    frames = [load(folder) for folder in folders]
    names = [Path(folder).resolve().name for folder in folders]
    names = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    shown = [labelled(frame)[0] for frame in frames]
    attrs: dict[Hashable | None, Any] = {
        "runs": [run for frame in frames for run in frame.attrs["runs"]],
        "problems": [problem for frame in frames for problem in frame.attrs["problems"]],
        "sweep": f"{', '.join(names[:-1])} and {names[-1]}",
        "question": None,
        "control": f"{names[0]}/{shown[0].attrs['control']}" if shown[0].attrs["control"] else None,
        "is_labelled": True,
    }
    arms = [f"{name}/{arm}" for name, frame in zip(names, shown, strict=True) for arm in dict.fromkeys(frame["arm"])]
    if control is not None and control not in arms:
        control = next((arm for arm in arms if arm.partition("/")[2] == control), control)
    return _joined(names, frames, attrs), _joined(names, shown, attrs), control


def _joined(names: Sequence[str], frames: Sequence[pd.DataFrame], attrs: dict[Hashable | None, Any]) -> pd.DataFrame:
    named = [
        frame.assign(arm=(name + "/" + frame["arm"]).astype("string"))
        for name, frame in zip(names, frames, strict=True)
    ]
    for frame in named:
        frame.attrs = {}  # pandas compares them, and keeps none if they differ
    joined = pd.concat(named, ignore_index=True)
    joined.attrs = attrs
    return joined
