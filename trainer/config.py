"""Every knob of a trial, with its default: the one place of truth.

Frozen, strict pydantic models; an unknown key or a wrong type is an error. Defaults are the challenge's baseline
(`presets/sp1024-9l.yaml`); presets say what differs. Units are in the names: `_s` seconds, `_frac` share of the run.
This module imports no torch, so that the command line starts fast.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class RuleError(ValueError):
    """A rule between fields is broken: `key` within the section, its value, and the fix."""

    def __init__(self, key: str, value: object, fix: str) -> None:
        self.key, self.value, self.fix = key, value, fix
        super().__init__(f"{key}: {value}: {fix}")


Gate = Literal["immediately", "step", "lr_scale", "wallclock_frac"]
TensorClass = Literal["mlp", "attn", "embed", "bigram", "value_embed", "other"]
TENSOR_CLASSES: tuple[TensorClass, ...] = ("mlp", "attn", "embed", "bigram", "value_embed", "other")


def _bits(value: int) -> int:
    if value not in (2, 3, 4, 5, 6, 7, 8, 16):
        raise ValueError("bits must be 2 to 8 (integers) or 16 (fp16)")
    return value


Bits = Annotated[int, AfterValidator(_bits)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Start(Section):
    """When a gate opens. `value`: a step, an LR multiplier (opens below it), or a share of the training clock."""

    kind: Gate = "immediately"
    value: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "immediately" and self.value:
            raise RuleError(
                "value", self.value, "kind immediately takes no value; say start.kind as well as start.value"
            )
        if self.kind in ("lr_scale", "wallclock_frac") and not 0 < self.value <= 1:
            raise RuleError("value", self.value, f"must be above 0 and at most 1 for kind {self.kind}")
        return self


class BigramConfig(Section):
    """BigramHash: hash of two tokens -> table -> projection. buckets 0 = off."""

    buckets: int = Field(0, ge=0)
    dim: int = Field(128, ge=1)


class ValueEmbedConfig(Section):
    """A second token embedding added to the attention values of some layers. dim 0 = off."""

    dim: int = Field(0, ge=0)
    layers: Annotated[tuple[int, ...], Field(strict=False)] = ()


class ModelConfig(Section):
    layers: int = Field(9, ge=1)
    dim: int = Field(512, ge=8)
    heads: int = Field(8, ge=1)
    kv_heads: int = Field(4, ge=1)
    mlp_mult: float = Field(2, gt=0)
    vocab_size: int = Field(1024, ge=2, le=65536)
    leaky_slope: float = Field(0.0, ge=0, le=1)
    rope_dims: int = Field(0, ge=0)  # of each head's dims, the first n turn; 0 = all
    rope_base: float = Field(10_000.0, gt=1)
    qk_gain_init: float = 1.5
    logit_softcap: float = Field(30.0, gt=0)
    embed_init_std: float = Field(0.005, gt=0)
    ln_scale: bool = False
    unet_skips: bool = True
    resid_mix: bool = True
    xsa_last_n: int = Field(0, ge=0)
    smear_gate: bool = False
    deep_delta: bool = False
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

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dim % self.heads:
            raise RuleError("heads", self.heads, f"must divide dim {self.dim}")
        if self.heads % self.kv_heads:
            raise RuleError("kv_heads", self.kv_heads, f"must divide heads {self.heads}")
        if self.head_dim % 2:
            raise RuleError(
                "heads", self.heads, f"dim / heads = {self.head_dim} must be even for RoPE; change dim or heads"
            )
        if self.rope_dims % 2 or self.rope_dims > self.head_dim:
            raise RuleError("rope_dims", self.rope_dims, f"must be even and at most dim / heads = {self.head_dim}")
        if self.mlp_dim < 1:
            raise RuleError("mlp_mult", self.mlp_mult, f"leaves no hidden units at dim {self.dim}; raise it")
        if self.xsa_last_n > self.layers:
            raise RuleError("xsa_last_n", self.xsa_last_n, f"must be at most layers {self.layers}")
        bad = [i for i in self.value_embed.layers if not 0 <= i < self.layers]
        if bad:
            raise RuleError("value_embed.layers", bad, f"must be within 0..{self.layers - 1}")
        if bool(self.value_embed.dim) != bool(self.value_embed.layers):
            raise RuleError(
                "value_embed.dim", self.value_embed.dim, "value_embed needs both dim and layers, or neither"
            )
        return self


class RecurrenceConfig(Section):
    """Depth recurrence; see `recurrence.py`. Only the keys of the chosen kind may be set."""

    kind: Literal["none", "loops", "gated", "partial"] = "none"
    loops: int = Field(1, ge=1)  # loops: passes over all layers
    lora_rank: int = Field(0, ge=0)  # loops: LoRA on q and v of every pass after the first; 0 = none
    last_layers: int = Field(0, ge=0)  # gated: how many of the last layers run again
    steps: int = Field(1, ge=1)  # gated: how often they run altogether
    layers: Annotated[tuple[int, ...], Field(strict=False)] = ()  # partial: which layers run twice
    start: Start = Start()  # partial: when the second pass is switched on

    @model_validator(mode="after")
    def _check(self) -> Self:
        own = {
            "none": (),
            "loops": ("loops", "lora_rank"),
            "gated": ("last_layers", "steps"),
            "partial": ("layers", "start"),
        }
        for key in self.model_fields_set - {"kind", *own[self.kind]}:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise RuleError(key, getattr(self, key), f"has no effect for recurrence.kind {self.kind}; remove it")
        if self.kind == "loops" and self.loops < 2:
            raise RuleError("loops", self.loops, "must be at least 2 for recurrence.kind loops")
        if self.kind == "gated" and (self.last_layers < 1 or self.steps < 2):
            raise RuleError("steps", self.steps, "recurrence.kind gated needs last_layers >= 1 and steps >= 2")
        if self.kind == "partial" and not self.layers:
            raise RuleError("layers", list(self.layers), "recurrence.kind partial needs the layers that run twice")
        return self


class DataConfig(Section):
    """`path`: a folder of shards. `tokenizer`: a SentencePiece .model; empty = the one *.model inside `path`."""

    path: str = "data/embedded"
    tokenizer: str = ""


class TrainConfig(Section):
    seq_len: int = Field(1024, ge=2)
    batch_tokens: int = Field(524_288, ge=2)  # per optimizer step, all ranks together
    micro_batch_tokens: int = Field(98_304, ge=2)  # per rank and forward pass; more are accumulated
    wallclock_s: float = Field(600.0, gt=0)
    iterations: int = Field(20_000, ge=1)
    warmup_steps: int = Field(20, ge=0)  # run before the clock starts, then undone
    grad_clip: float = Field(0.0, ge=0)  # global norm; 0 = off
    val_every: int = Field(0, ge=0)  # steps between validations of the raw weights, off the clock; 0 = at the end only
    log_every: int = Field(50, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool | None = None  # null: on for CUDA, off for CPU
    checkpoint_every_s: float = Field(60.0, ge=0)  # 0 = never


class WarmdownConfig(Section):
    """Linear fall of the LR multiplier to `min_lr`. `value`: iterations, or a share of the training clock."""

    kind: Literal["iterations", "wallclock_frac"] = "iterations"
    value: float = Field(1200, ge=0)
    min_lr: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "wallclock_frac" and self.value > 1:
            raise RuleError("value", self.value, "must be within 0..1 for kind wallclock_frac")
        return self


class OptimConfig(Section):
    matrix_lr: float = Field(0.04, ge=0)
    scalar_lr: float = Field(0.04, ge=0)
    embed_lr: float = Field(0.05, ge=0)
    muon_momentum: float = Field(0.95, ge=0, lt=1)
    muon_momentum_start: float = Field(0.85, ge=0, lt=1)
    muon_momentum_steps: int = Field(500, ge=0)
    muon_variant: Literal["muon", "muon_vs"] = "muon"
    ns_steps: int = Field(5, ge=0, le=20)
    weight_decay: float = Field(0.0, ge=0)
    adam_weight_decay: float = Field(0.0, ge=0)
    warmdown: WarmdownConfig = WarmdownConfig()


class WeightTechnique(Section):
    """A technique that changes the compute weights by the quantization scheme: `techniques/<name>.py`. Off by default."""

    @property
    def is_on(self) -> bool:
        raise NotImplementedError


class QatConfig(WeightTechnique):
    """Fake quantization of the compute weights with the exporter's own scheme, straight-through gradient."""

    enabled: bool = False
    start: Start = Start(kind="lr_scale", value=0.15)
    scope: Annotated[tuple[TensorClass, ...], Field(strict=False)] = TENSOR_CLASSES
    mode: Literal["ste", "swap"] = "ste"
    reset_ema: bool = False
    stop_swa: bool = False

    @property
    def is_on(self) -> bool:
        return self.enabled


class QnaConfig(WeightTechnique):
    """Quantization noise annealing (PR 975). magnitude 0 = off, 1 = half a quantization step at full LR."""

    magnitude: float = Field(0.0, ge=0)

    @property
    def is_on(self) -> bool:
        return self.magnitude > 0


class QuantNoiseConfig(WeightTechnique):
    """Quant-Noise (arXiv:2004.07320): the share of the weights that is fake-quantized at each step, drawn anew. 0 = off."""

    share: float = Field(0.0, ge=0, le=1)

    @property
    def is_on(self) -> bool:
        return self.share > 0


class AverageConfig(Section):
    """Which weights are exported. See `averaging.py`; averaging never changes the training trajectory."""

    kind: Literal["none", "ema", "swa", "lawa", "sqwa"] = "none"
    decay: float = Field(0.997, ge=0, lt=1)
    half_life_frac: float | None = Field(None, gt=0)  # instead of decay: EMA half-life as a share of the steps
    start: Literal["immediately", "warmdown", "qat"] = "immediately"
    every: int = Field(0, ge=0)
    count: int = Field(0, ge=0)
    lr_below: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "swa" and not (self.count or self.every):
            raise RuleError("count", self.count, "swa needs count (snapshots by LR multiplier) or every (steps)")
        if self.kind == "lawa" and self.every and not self.count:
            raise RuleError("count", self.count, "lawa with every needs count, how many snapshots it keeps")
        return self


class BitsConfig(Section):
    mlp: Bits = 8
    attn: Bits = 8
    embed: Bits = 8
    bigram: Bits = 8
    value_embed: Bits = 8
    other: Bits = 8


class QuantConfig(Section):
    bits: BitsConfig = BitsConfig()
    group_rows: int = Field(1, ge=1)  # rows that share one scale
    clip: Literal["absmax", "search", "sigma"] = "absmax"
    clip_sigma: float = Field(4.0, gt=0)
    scale_floor: float | None = Field(None, gt=0)
    keep_fp16: Annotated[tuple[str, ...], Field(strict=False)] = ()  # tensor-name patterns, as in fnmatch
    fp16_max_elements: int = Field(65_536, ge=0)  # tensors up to this size stay fp16
    prune_frac: float = Field(0.0, ge=0, lt=1)
    svd_rank: int = Field(0, ge=0)


class ExportConfig(Section):
    codec: Literal["zlib", "zstd", "lzma", "brotli", "ans"] = "zlib"


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


class Config(Section):
    """One trial: everything that can change its numbers, but for the data's content and the number of ranks."""

    model: ModelConfig = ModelConfig()
    recurrence: RecurrenceConfig = RecurrenceConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    optim: OptimConfig = OptimConfig()
    qat: QatConfig = QatConfig()
    qna: QnaConfig = QnaConfig()
    quant_noise: QuantNoiseConfig = QuantNoiseConfig()
    average: AverageConfig = AverageConfig()
    quant: QuantConfig = QuantConfig()
    export: ExportConfig = ExportConfig()
    eval: EvalConfig = EvalConfig()
    seed: int = Field(1337, ge=0, lt=2**31)

    @property
    def weight_techniques(self) -> dict[str, WeightTechnique]:
        """Section name -> section, of every technique on the compute weights, on or off."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in sections.items() if isinstance(section, WeightTechnique)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        bad = [i for i in self.recurrence.layers if not 0 <= i < self.model.layers]
        if bad:
            raise RuleError("recurrence.layers", bad, f"must be within 0..{self.model.layers - 1}")
        if self.recurrence.last_layers > self.model.layers:
            raise RuleError(
                "recurrence.last_layers", self.recurrence.last_layers, f"must be at most {self.model.layers}"
            )
        if self.train.batch_tokens % self.train.seq_len:
            raise RuleError(
                "train.batch_tokens",
                self.train.batch_tokens,
                f"must be a multiple of train.seq_len {self.train.seq_len}",
            )
        return self


class Machine(Section):
    """What one job holds on each of its nodes, and how its ranks are started: `nproc` per node. gpus 0 = CPU."""

    gpus: int = Field(0, ge=0)
    cpus: int = Field(1, ge=1)
    nodes: int = Field(1, ge=1)
    nproc: int = Field(1, ge=1)
    launcher: Literal["torchrun", "srun", "plain"] = "torchrun"  # plain: one process, for a single rank

    @property
    def total_gpus(self) -> int:
        return self.nodes * self.gpus

    @property
    def world_size(self) -> int:
        return self.nodes * self.nproc
