"""A tiny model, tokenizer and shards, on which a test trains in a second. The text is Python's own help."""

import json
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch

from trainer.config import Config
from trainer.data.shards import write_shard
from trainer.presets.resolve import build_config
from trainer.records.job import Job, TrialSpec
from trainer.run.dist import DistContext

VOCAB_SIZE = 400

TINY: dict[str, Any] = {
    "model.layers": 3,
    "model.dim": 32,
    "model.heads": 4,
    "model.kv_heads": 2,
    "model.mlp_mult": 3,
    "model.vocab_size": VOCAB_SIZE,
    "model.leaky_slope": 0.5,
    "model.rope_dims": 4,
    "model.ln_scale": True,
    "model.xsa_last_n": 1,
    "model.smear_gate": True,
    "model.bigram.buckets": 64,
    "model.bigram.dim": 16,
    "model.value_embed.dim": 16,
    "model.value_embed.layers": [2],
    "train.seq_len": 32,
    "train.batch_tokens": 512,
    "train.iterations": 12,
    "train.warmup_steps": 1,
    "train.log_every": 1,
    "train.grad_clip": 0.3,
    "train.checkpoint_every_s": 0,
    "train.device": "cpu",
    "optim.matrix_lr": 0.02,
    "optim.scalar_lr": 0.02,
    "optim.embed_lr": 0.03,
    "optim.warmdown.value": 6,
    "quant.fp16_max_elements": 256,
    "eval.seq_len": 32,
    "eval.stride": 16,
    "eval.batch_tokens": 1024,
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of shards and a tokenizer, made from the interpreter's help texts."""
    folder = tmp_path_factory.mktemp("tiny-data")
    texts = [topics[key] for key in sorted(topics)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(texts[:40]).splitlines()),
        model_prefix=str(folder / "tiny"),
        vocab_size=VOCAB_SIZE,
        model_type="bpe",
        byte_fallback=True,
        num_threads=1,
        minloglevel=2,
        user_defined_symbols=["\u2581"],
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tiny.model"))
    tokens = np.concatenate([np.array([processor.bos_id(), *processor.encode(text)]) for text in texts])
    write_shard(folder / "fineweb_train_000000.bin", tokens[:30_001])
    write_shard(folder / "fineweb_train_000001.bin", tokens[30_001:60_000])
    write_shard(folder / "fineweb_val_000000.bin", tokens[60_000:62_000])
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_data: Path) -> Callable[..., Config]:
    """tiny(**{"qat.enabled": True}) -> a Config of the tiny model on the tiny data."""

    def build(**overrides: Any) -> Config:
        return build_config({**TINY, "data.path": str(tiny_data), **overrides}, "test")

    return build


@pytest.fixture(scope="session")
def alone() -> DistContext:
    return DistContext(0, 1, torch.device("cpu"))


def job_of(*configs: Config, fingerprint: str = "f") -> Job:
    trials = [TrialSpec(trial_id=f"trial{i}", config=config) for i, config in enumerate(configs)]
    return Job(job_id="job", train_fingerprint=fingerprint, trials=trials)


def write_job(path: Path, job: Job) -> Path:
    path.write_text(json.dumps(job.model_dump(mode="json")))
    return path
