"""Write the golden files: outputs that change only on purpose. `make golden` rewrites them, in a separate commit.

`losses.json`   training loss of each of 20 steps of a tiny run on synthetic tokens (CPU, one rank)
`quantizer.json`  sha256 of the symbols and scales of fixed weights under every scheme
`defaults.json`   every default of `trainer/config.py`, and the FINGERPRINT_VERSION they belong to
`help.txt`      the help of every verb of pgray and of the trainer
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from trainer.config import Config
from trainer.loop import TrainingRun
from trainer.presets.resolve import build_config, flatten
from trainer.quant.quantizer import Scheme, quantize
from trainer.records.fingerprint import FINGERPRINT_VERSION
from trainer.run.dist import DistContext

HERE = Path(__file__).parent

TINY = {
    "model": {"layers": 2, "dim": 32, "heads": 4, "kv_heads": 2, "vocab_size": 64, "xsa_last_n": 1, "smear_gate": True},
    "train": {"seq_len": 32, "batch_tokens": 256, "iterations": 20, "warmup_steps": 0, "log_every": 1, "device": "cpu"},
    "optim.warmdown.value": 10,
    "quant": {"fp16_max_elements": 0, "bits": {"mlp": 4}},
    "qna.magnitude": 1.0,
    "qat": {"enabled": True, "start": {"kind": "step", "value": 12}},
    "average.kind": "ema",
    "eval": {"seq_len": 32, "stride": 0},
}


def losses() -> list[float]:
    """Return 20 training losses of the tiny run, in nats."""
    from trainer.data.shards import write_shard
    from trainer.data.stream import TokenStream
    from trainer.evaluation.scoring import Validation, make_forward
    from trainer.model.model import build_model
    from trainer.records.events import EventLog, read_events
    from trainer.records.fingerprint import average_key
    from trainer.run.checkpoint import Checkpoint

    torch.set_num_threads(1)
    config: Config = build_config(TINY, "golden")
    dist = DistContext(0, 1, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        walk = np.cumsum(rng.integers(-2, 3, 8000)) % 64  # neighbouring tokens are likely, so the model can learn
        write_shard(folder / "fineweb_train_000000.bin", walk)
        model = build_model(config, "cpu")
        events = EventLog(folder / "events.jsonl")
        stream = TokenStream(folder, config.train, dist, config.model.vocab_size)
        run = TrainingRun(
            config, model, make_forward(model, config, dist.device), {average_key(config): config}, stream, dist,
            events, Validation.__new__(Validation), Checkpoint(folder / "checkpoint", dist),
        )  # fmt: skip
        run.run()
        stream.close()
        return [e["train_loss_nats"] for e in read_events(folder / "events.jsonl") if e["event"] == "step"]


def quantizer_hashes() -> dict[str, str]:
    """Return scheme -> sha256 of the symbols and scales of weights that are exact in float32 on any machine."""
    rng = np.random.default_rng(0)
    w = torch.from_numpy((rng.integers(-4096, 4097, (2, 12, 40)) / 4096).astype(np.float32))
    hashes = {}
    for clip in ("absmax", "search", "percentile"):
        for bits in range(2, 9):
            for group_rows in (1, 5):
                quantized = quantize(w, Scheme(bits, group_rows, clip, clip_percentile=99.0))  # type: ignore[arg-type]
                content = quantized.q_LOI.numpy().tobytes() + quantized.scale_LG.numpy().astype("<f2").tobytes()
                hashes[f"{clip}-int{bits}-rows{group_rows}"] = hashlib.sha256(content).hexdigest()[:16]
    return hashes


def defaults() -> dict[str, object]:
    """Return dotted key -> default, and the fingerprint version."""
    flat = dict(flatten(Config().model_dump(mode="json")))
    return {"fingerprint_version": FINGERPRINT_VERSION, **flat}


def help_text() -> str:
    """Return the help of every verb, 100 columns wide."""
    from pgray.cli.entry import DATA_VERBS, VERBS

    texts = []
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    data_verbs = [["data"], *(["data", verb] for verb in DATA_VERBS)]
    pages = [
        ["pgray"],
        *(["pgray", verb] for verb in VERBS),
        *(["pgray", *words] for words in data_verbs),
        ["trainer"],
    ]
    commands = [["-m", *page, "--help"] for page in pages]
    for command in commands:
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=True)
        texts.append(f"$ python {' '.join(command)}\n" + "\n".join(line.rstrip() for line in done.stdout.splitlines()))
    return "\n\n".join(texts) + "\n"


def main() -> None:
    (HERE / "losses.json").write_text(json.dumps(losses(), indent=1) + "\n")
    (HERE / "quantizer.json").write_text(json.dumps(quantizer_hashes(), indent=1) + "\n")
    (HERE / "defaults.json").write_text(json.dumps(defaults(), indent=1) + "\n")
    (HERE / "help.txt").write_text(help_text())


if __name__ == "__main__":
    main()
