"""The section `eval`: context length, sliding windows, test-time training. Torch-free."""

from pydantic import Field

from trainer.section import Rules, Section


class TttConfig(Section):
    """Score-first test-time training: each chunk is scored before the weights are updated on it."""

    enabled: bool = False  # also score with test-time training (column `ttt_bpb`)
    lr: float = Field(0.002, ge=0)  # SGD learning rate of the first chunk; a cosine takes it to 0 at the last chunk
    epochs: int = Field(3, ge=1)  # passes over each chunk after it is scored
    chunk_tokens: int = Field(32_768, ge=2)  # tokens scored between two rounds of updates; a multiple of eval.seq_len
    freeze_blocks: int = Field(2, ge=0)  # first blocks whose own gains, scales and gates stay fixed; matrices never do


class EvalConfig(Section):
    seq_len: int = Field(1024, ge=2)  # context length in tokens
    stride: int = Field(64, ge=0)  # step of the sliding window in tokens; 0 = no sliding evaluation
    batch_tokens: int = Field(262_144, ge=2)  # per rank and forward pass
    ttt: TttConfig = TttConfig()
    antilayer: bool = False  # diagnostic: evaluate with one layer switched off at a time

    @property
    def batch_rows(self) -> int:
        """Windows per rank and forward pass."""
        return max(1, self.batch_tokens // self.seq_len)

    def rules(self) -> Rules:
        ttt, seq_len = self.ttt, self.seq_len
        yield self.stride > seq_len, "stride", f"must be at most eval.seq_len {seq_len}, or targets would be skipped"
        yield ttt.enabled and not self.stride, "stride", "test-time training scores by sliding windows; set a stride"
        is_uneven = ttt.enabled and ttt.chunk_tokens % seq_len
        yield is_uneven, "ttt.chunk_tokens", f"must be a multiple of eval.seq_len {seq_len}"
