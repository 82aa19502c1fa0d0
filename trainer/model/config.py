"""The sections `model` and `recurrence`: the shape of the network and which blocks run again. Torch-free."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.section import Rules, Section, Start


class BigramConfig(Section):
    """BigramHash: hash of two tokens -> table -> projection. buckets 0 = off."""

    buckets: int = Field(0, ge=0)  # rows of the hash table; 0 = off
    dim: int = Field(128, ge=1)  # width of a row, before the projection to model.dim


class ValueEmbedConfig(Section):
    """A second token embedding added to the attention values of some layers. dim 0 = off."""

    dim: int = Field(0, ge=0)  # width of the table, before the projection; 0 = off
    layers: Annotated[tuple[int, ...], Field(strict=False)] = ()  # layers, counted from 0, whose values receive it


class ModelConfig(Section):
    layers: int = Field(9, ge=1)  # transformer blocks
    dim: int = Field(512, ge=8)  # width of the residual stream
    heads: int = Field(8, ge=1)  # query heads; must divide dim
    kv_heads: int = Field(4, ge=1)  # key/value heads; must divide heads
    mlp_mult: float = Field(2, gt=0)  # hidden units of the MLP as a multiple of dim
    vocab_size: int = Field(1024, ge=2, le=65536)  # must equal the tokenizer's number of pieces
    leaky_slope: float = Field(0.0, ge=0, le=1)  # negative slope of the squared leaky ReLU in the MLP; 0 = relu^2
    rope_dims: int = Field(0, ge=0)  # dims of each head that RoPE rotates; 0 = all
    rope_base: float = Field(10_000.0, gt=1)  # base of the RoPE frequencies
    qk_gain_init: float = 1.5  # initial value of the learned gain of each query head
    logit_softcap: float = Field(30.0, gt=0)  # logits become cap * tanh(logits / cap)
    init: Literal["uniform", "orthogonal"] = "uniform"  # initial matrices: torch's default for Linear, or orthogonal
    embed_init_std: float = Field(0.005, gt=0)  # standard deviation of the initial token embedding
    ln_scale: bool = False  # scale each block's normalized input by 1 / sqrt(layer + 1)
    unet_skips: bool = True  # learned skip connections from the first half of the layers to the second
    resid_mix: bool = True  # learned mix of the residual stream and the embedding before each block
    xsa_last_n: int = Field(0, ge=0)  # last n layers remove each token's own value from attention's output (XSA)
    smear_gate: bool = False  # learned mix of each token's embedding with the previous token's
    deep_delta: bool = False  # learned scale, per channel, of each block's input, before attention reads it
    bigram: BigramConfig = BigramConfig()
    value_embed: ValueEmbedConfig = ValueEmbedConfig()

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def kv_dim(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def mlp_dim(self) -> int:
        return int(self.mlp_mult * self.dim)

    def rules(self) -> Rules:
        yield self.dim % self.heads, "heads", f"must divide dim {self.dim}"
        yield self.heads % self.kv_heads, "kv_heads", f"must divide heads {self.heads}"
        head = f"dim / heads = {self.head_dim}"
        yield self.head_dim % 2, "heads", f"{head} must be even for RoPE; change dim or heads"
        is_bad_rope = self.rope_dims % 2 or self.rope_dims > self.head_dim
        yield is_bad_rope, "rope_dims", f"must be even and at most {head}"
        yield self.mlp_dim < 1, "mlp_mult", f"leaves no hidden units at dim {self.dim}; raise it"
        yield self.xsa_last_n > self.layers, "xsa_last_n", f"must be at most layers {self.layers}"
        ve = self.value_embed
        is_outside = any(not 0 <= i < self.layers for i in ve.layers)
        yield is_outside, "value_embed.layers", f"must be within 0..{self.layers - 1}"
        yield bool(ve.dim) != bool(ve.layers), "value_embed.dim", "value_embed needs both dim and layers, or neither"


class RecurrenceConfig(Section):
    """Depth recurrence: layers that run more than once. Only the keys of the chosen kind may be set."""

    kind: Literal["none", "loops", "gated", "partial"] = "none"  # repeat all layers, the last ones, or some
    loops: int = Field(1, ge=1)  # loops: passes over all layers
    lora_rank: int = Field(0, ge=0)  # loops: LoRA on q and v of every pass after the first; 0 = none
    last_layers: int = Field(0, ge=0)  # gated: how many of the last layers run again
    steps: int = Field(1, ge=1)  # gated: how often they run altogether
    layers: Annotated[tuple[int, ...], Field(strict=False)] = ()  # partial: which layers run twice
    start: Start = Start()  # partial: when the second pass is switched on

    def rules(self) -> Rules:
        own = {"loops": ("loops", "lora_rank"), "gated": ("last_layers", "steps"), "partial": ("layers", "start")}
        for key in self.model_fields_set - {"kind", *own.get(self.kind, ())}:
            is_changed = getattr(self, key) != type(self).model_fields[key].default
            yield is_changed, key, f"has no effect for recurrence.kind {self.kind}; remove it"
        kind, is_single = self.kind, self.last_layers < 1 or self.steps < 2
        yield kind == "loops" and self.loops < 2, "loops", "must be at least 2 for recurrence.kind loops"
        yield kind == "gated" and is_single, "steps", "recurrence.kind gated needs last_layers >= 1 and steps >= 2"
        yield kind == "partial" and not self.layers, "layers", "recurrence.kind partial needs the layers that run twice"
