"""Parameter shapes and expected artifact size of a config, without torch: what `pgray plan` shows before a GPU is touched.

The shapes are those of `model.py` (a test holds them equal for every preset and technique). The size is the order-0 entropy
of Gaussian matrices times what the codec adds: right to 5 % for such weights. Weights trained for long have heavier tails,
so fewer bits per symbol: PR 975's baseline came to 15.9 MB where this says 18.5. So it is a cautious estimate, no verdict.
"""

import math
from fnmatch import fnmatchcase

from trainer.bundle import code_bytes
from trainer.config import Config, QuantConfig
from trainer.errors import InputError
from trainer.quant.scheme import num_groups
from trainer.quant.select import TensorPlan, plan_tensors

Shapes = dict[str, tuple[int, ...]]

CODEC_FACTOR = {
    "zlib": (1.165, 1.048, 1.010),
    "zstd": (1.018, 1.009, 1.007),
    "lzma": (1.049, 1.024, 1.015),
    "brotli": (1.014, 1.007, 1.005),
    "ans": (1.001, 1.002, 1.003),
}
"""Bytes over order-0 entropy at int4, int6 and int8, measured on Gaussian 512 x 512 matrices with absmax scales."""

TENSOR_HEADER_BYTES = 20  # per stored tensor, in the compressed header


def parameter_shapes(config: Config) -> Shapes:
    """Name -> shape of every parameter."""
    m, r = config.model, config.recurrence
    L, D = m.layers, m.dim
    shapes: Shapes = {
        "attn_q": (L, D, D),
        "attn_k": (L, m.kv_dim, D),
        "attn_v": (L, m.kv_dim, D),
        "attn_o": (L, D, D),
        "mlp_up": (L, m.mlp_dim, D),
        "mlp_down": (L, D, m.mlp_dim),
        "embed": (m.vocab_size, D),
        "q_gain": (L, m.heads),
        "attn_scale": (L, D),
        "mlp_scale": (L, D),
    }
    virtual_layers = L * r.loops if r.kind == "loops" else L
    if m.resid_mix:
        shapes["resid_mix"] = (L, 2, D)
    if m.deep_delta:
        shapes["deep_delta"] = (L, D)
    if m.unet_skips and virtual_layers >= 2:
        shapes["skip_weight"] = (virtual_layers // 2, D)
    if m.smear_gate:
        shapes["smear_gate"] = (D,)
    if m.bigram.buckets:
        shapes |= {
            "bigram_table": (m.bigram.buckets, m.bigram.dim),
            "bigram_proj": (D, m.bigram.dim),
            "bigram_scale": (1,),
        }
    if m.value_embed.dim:
        ve = m.value_embed
        shapes |= {"value_embed_table": (m.vocab_size, ve.dim), "value_embed_proj": (m.kv_dim, ve.dim)}
        shapes |= {"value_embed_scale": (1,), "value_embed_layer_scale": (len(ve.layers),)}
    if r.lora_rank:
        extra = (r.loops - 1) * L
        shapes |= {"lora_q_down": (extra, r.lora_rank, D), "lora_q_up": (extra, D, r.lora_rank)}
        shapes |= {"lora_v_down": (extra, r.lora_rank, D), "lora_v_up": (extra, m.kv_dim, r.lora_rank)}
    if r.kind == "gated":
        shapes |= {"depth_gate": (D, 2 * D), "depth_gate_bias": (D,), "depth_embed": (r.steps - 1, D)}
    return shapes


def check_patterns(config: Config, place: str) -> None:
    """Refuse a `quant.keep_fp16` pattern that matches no stored tensor: it would do nothing and say nothing."""
    plans = plan_tensors(parameter_shapes(config), config.quant)
    names = [*plans, *(stored for plan in plans.values() for stored in plan.stored_names)]
    for pattern in config.quant.keep_fp16:
        if not any(fnmatchcase(name, pattern) for name in names):
            fix = "matches no tensor; names are such as embed, attn_k, mlp_up.3"
            raise InputError(place, "quant.keep_fp16", pattern, fix)


def num_params(config: Config) -> int:
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


def predicted_artifact_bytes(config: Config) -> int:
    """Expected size of code plus compressed weights, in bytes."""
    plans = plan_tensors(parameter_shapes(config), config.quant).values()
    stored = sum(len(plan.stored_names) * TENSOR_HEADER_BYTES + _parameter_bytes(plan, config) for plan in plans)
    return round(stored) + code_bytes()


def _parameter_bytes(plan: TensorPlan, config: Config) -> float:
    """All that is stored of one parameter, without headers."""
    floats = math.prod(plan.shape) - plan.int_elements
    if plan.tensor_class == "control":
        return 4.0 * floats
    fp16 = 2.0 * floats * 0.93  # zlib finds a little in fp16 exponents
    if plan.scheme is None:
        return fp16
    bits, group_rows = plan.scheme.bits, plan.scheme.group_rows
    rows, cols = plan.shape[-2:]
    scales = 2.0 * num_groups(rows, group_rows) * sum(plan.int_layers)
    symbols = plan.int_elements * _bits_per_symbol(bits, cols * group_rows, config.quant) / 8
    return fp16 + scales + symbols * _codec_factor(config.export.codec, bits)


def _codec_factor(codec: str, bits: int) -> float:
    at4, at6, at8 = CODEC_FACTOR[codec]
    return at4 + (at6 - at4) * (bits - 4) / 2 if bits <= 6 else at6 + (at8 - at6) * (bits - 6) / 2


def _bits_per_symbol(bits: int, group_size: int, quant: QuantConfig) -> float:
    """Entropy of a rounded Gaussian whose largest of `group_size` values is q_max (or clipped at k sigma)."""
    q_max = 2 ** (bits - 1) - 1
    largest = quant.clip_sigma if quant.clip == "sigma" else math.sqrt(2 * math.log(max(group_size, 2)))
    sigma = q_max / largest  # in integer steps
    levels = range(-q_max, q_max + 1)
    weights = [math.exp(-0.5 * (level / sigma) ** 2) for level in levels]
    total = sum(weights)
    entropy = -sum(w / total * math.log2(w / total) for w in weights if w > 0)
    kept = 1 - quant.prune_frac
    if kept == 1:
        return entropy
    return kept * entropy - kept * math.log2(kept) - quant.prune_frac * math.log2(quant.prune_frac)
