"""Measures what QNA, QAT, EMA and SQWA add to the time of a training step, paired in one process.

    python bench/technique_tax.py [--preset cpu-smoke] [--rounds 30] [--set key=value ...]

Every round times one step of each variant, in random order, on the same tokens. The tax is the median over rounds of the
ratio to the plain step of the same round; quartiles follow it. On a noisy machine ratios are reliable, milliseconds are
not. SQWA takes a snapshot at every step here.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch

from trainer.averaging.base import build_average
from trainer.config import Config
from trainer.evaluation.scoring import make_forward
from trainer.model.model import build_model
from trainer.optim.optimizer import Optimizer
from trainer.optim.schedule import TrainProgress
from trainer.optim.weights import NO_GATES, QAT_ONLY, Gates, Weights
from trainer.presets.resolve import build_config, load_preset
from trainer.presets.yamlfile import parse_yaml
from trainer.run.dist import DistContext

LATE = TrainProgress(step=1000, elapsed_s=590.0, progress=0.99, lr_scale=0.1)


def variants(config: Config, dist: DistContext) -> dict[str, Callable[[], None]]:
    """Name -> one whole step of that variant. All share one model, optimizer and batch."""
    on = {
        "qat": config.qat.model_copy(update={"enabled": True}),
        "qna": config.qna.model_copy(update={"magnitude": 1.0}),
    }
    config = config.model_copy(update=on)
    model = build_model(config, dist.device)
    forward = make_forward(model, config, dist.device)
    weights = Weights(model, config, dist)
    optimizer = Optimizer(weights.master, config, dist)
    rows = min(config.train.batch_tokens, config.train.micro_batch_tokens) // config.train.seq_len
    tokens = torch.randint(0, config.model.vocab_size, (rows, config.train.seq_len + 1), device=dist.device)

    def averaging(kind: str) -> Callable[[], None]:
        changed = config.average.model_copy(update={"kind": kind, "every": 1, "lr_below": 1.0, "half_life_frac": None})
        average = build_average(config.model_copy(update={"average": changed}), weights.master)
        return lambda: average.update(weights.master, LATE, False)

    def step(gates: Gates, after: Callable[[], None] | None = None) -> Callable[[], None]:
        def run() -> None:
            weights.write(gates)
            for p in weights.compute.values():
                p.grad = None
            forward(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step(weights.compute, LATE)
            if after:
                after()

        return run

    return {
        "plain": step(NO_GATES),
        "plain again (noise floor)": step(NO_GATES),
        "qna": step({"qna": 1.0}),
        "qat": step(QAT_ONLY),
        "ema": step(NO_GATES, averaging("ema")),
        "sqwa, a snapshot every step": step(NO_GATES, averaging("sqwa")),
    }


def timed(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="Step-time tax of each technique, paired in one process.")
    parser.add_argument("--preset", default="cpu-smoke")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    overrides = dict(item.split("=", 1) for item in args.set)
    preset = load_preset(args.preset)
    config = build_config({**preset.overrides, **{k: parse_yaml(v, "--set") for k, v in overrides.items()}}, "--set")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    steps = variants(config, DistContext(0, 1, device))
    for step in steps.values():
        for _ in range(3):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for _ in range(args.rounds):
        random.shuffle(order)
        for name in order:
            seconds[name].append(timed(steps[name], device))
    print(f"{args.preset} on {device}, {args.rounds} rounds; clip {config.quant.clip}, bits {config.quant.bits}")
    print(f"{'variant':30} {'step ms':>9} {'tax':>8}   quartiles")
    for name in steps:
        ratios = [a / b - 1 for a, b in zip(seconds[name], seconds["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:30} {1000 * statistics.median(seconds[name]):9.2f} {middle:+8.1%}   {low:+.1%} .. {high:+.1%}")


if __name__ == "__main__":
    main()
