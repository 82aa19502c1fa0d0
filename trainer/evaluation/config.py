"""The section `eval`: context length, sliding windows, test-time training. Torch-free."""

from typing import Self

from pydantic import Field, model_validator

from trainer.section import RuleError, Section


class TttConfig(Section):
    """Score-first test-time training: each chunk is scored before any update that has seen it."""

    enabled: bool = False
    lr: float = Field(0.002, ge=0)
    epochs: int = Field(3, ge=1)
    chunk_tokens: int = Field(32_768, ge=2)


class EvalConfig(Section):
    seq_len: int = Field(1024, ge=2)
    stride: int = Field(64, ge=0)  # sliding window; 0 = skip
    batch_tokens: int = Field(262_144, ge=2)  # per rank and forward pass
    ttt: TttConfig = TttConfig()
    antilayer: bool = False  # silence one layer at a time and evaluate

    @property
    def batch_rows(self) -> int:
        """Windows per rank and forward pass."""
        return max(1, self.batch_tokens // self.seq_len)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stride > self.seq_len:
            raise RuleError(
                "stride", self.stride, f"must be at most eval.seq_len {self.seq_len}, or targets would be skipped"
            )
        if self.ttt.enabled and not self.stride:
            raise RuleError("stride", self.stride, "test-time training scores by sliding windows; set a stride")
        if self.ttt.enabled and self.ttt.chunk_tokens % self.seq_len:
            raise RuleError(
                "ttt.chunk_tokens", self.ttt.chunk_tokens, f"must be a multiple of eval.seq_len {self.seq_len}"
            )
        return self
