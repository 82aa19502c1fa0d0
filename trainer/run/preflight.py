"""Builds models on the meta device, without memory, and prints their shapes: `python -m trainer.run.preflight`.

It reads configs from standard input, {name: {"model": {...}, "recurrence": {...}}}, and writes to standard output
{name: {"num_params": n, "tensors": [{"name", "tensor_class", "shape"}, ...]}}, or {name: {"error": "..."}} for a model that
cannot be built. pgray, which never loads torch, runs it as a subprocess.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import torch

from trainer.config import Config
from trainer.model.model import Model, num_params
from trainer.quant.tensor_classes import CLASS_OF


def describe_model(config: Config) -> dict[str, Any]:
    """Return a model's tensors. `tensor_class` is `control` for those that are never quantized."""
    with torch.device("meta"):
        model = Model(config)
    tensors = [
        {"name": name, "tensor_class": CLASS_OF.get(name, "control"), "shape": list(parameter.shape)}
        for name, parameter in model.named_parameters()
    ]
    return {"num_params": num_params(model), "tensors": tensors}


def describe_or_error(sections: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return describe_model(Config.model_validate_json(json.dumps(sections)))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    json.dump({name: describe_or_error(sections) for name, sections in asked.items()}, sys.stdout)
