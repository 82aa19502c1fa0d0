"""Check the data of a plan, each folder once."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pgray.data.check import DataReport
from trainer.config import Config
from trainer.errors import DataError

CheckData = Callable[..., DataReport]
"""`pgray.data.check.preflight`, with its arguments."""


class DataKey(NamedTuple):
    """What is checked of the data once for all trials that share it."""

    folder: str
    tokenizer: str
    vocab_size: int
    longest_sequence: int  # tokens


def data_hashes(config: Config, checked: dict[DataKey, DataReport], check_data: CheckData) -> tuple[str, str]:
    """Return the hashes of a config's data and tokenizer. `checked`: the reports so far; a new one is added."""
    longest = max(config.train.seq_len, config.eval.seq_len)
    key = DataKey(config.data.path, config.data.tokenizer, config.model.vocab_size, longest)
    if key not in checked:
        checked[key] = check_data(Path(key.folder), *key[1:])
    report = checked[key]
    if report.train_tokens <= config.train.batch_tokens:
        problem = f"{report.train_tokens} training tokens, fewer than one batch"
        raise DataError(config.data.path, problem, f"lower train.batch_tokens {config.train.batch_tokens}, or get more")
    assert report.data_sha is not None
    assert report.tokenizer_sha is not None
    return report.data_sha, report.tokenizer_sha
