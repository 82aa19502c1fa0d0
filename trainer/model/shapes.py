"""Names and shapes of a model's parameters. Torch-free, so that `pgray plan` counts them without loading torch."""

import math
from fnmatch import fnmatchcase

from trainer.config import Config
from trainer.errors import InputError
from trainer.quant.tensor_plan import plan_tensors

Shapes = dict[str, tuple[int, ...]]

BLOCK_PARAMETERS = (
    "q_gain", "attn_scale", "mlp_scale", "resid_mix", "deep_delta", "depth_gate", "depth_gate_bias"
)  # fmt: skip
"""Parameters of one row per block, except its matrices. Those with fewer rows than layers belong to the last blocks."""


def parameter_shapes(config: Config) -> Shapes:
    """Return name -> shape of every parameter, in the model's order."""
    m, r = config.model, config.recurrence
    ve, L, D = m.value_embed, m.layers, m.dim
    virtual_layers = L * r.loops if r.kind == "loops" else L
    extra = (r.loops - 1) * L
    parts: list[tuple[object, Shapes]] = [
        (True, {"attn_q": (L, D, D), "attn_k": (L, m.kv_dim, D), "attn_v": (L, m.kv_dim, D), "attn_o": (L, D, D)}),
        (True, {"mlp_up": (L, m.mlp_dim, D), "mlp_down": (L, D, m.mlp_dim), "embed": (m.vocab_size, D)}),
        (True, {"q_gain": (L, m.heads), "attn_scale": (L, D), "mlp_scale": (L, D)}),
        (m.resid_mix, {"resid_mix": (L, 2, D)}),
        (m.deep_delta, {"deep_delta": (L, D)}),
        (m.unet_skips and virtual_layers >= 2, {"skip_weight": (virtual_layers // 2, D)}),
        (m.smear_gate, {"smear_gate": (D,)}),
        (m.bigram.buckets, {"bigram_table": (m.bigram.buckets, m.bigram.dim), "bigram_proj": (D, m.bigram.dim)}),
        (m.bigram.buckets, {"bigram_scale": (1,)}),
        (ve.dim, {"value_embed_table": (m.vocab_size, ve.dim), "value_embed_proj": (m.kv_dim, ve.dim)}),
        (ve.dim, {"value_embed_scale": (1,), "value_embed_layer_scale": (len(ve.layers),)}),
        (r.lora_rank, {"lora_q_down": (extra, r.lora_rank, D), "lora_q_up": (extra, D, r.lora_rank)}),
        (r.lora_rank, {"lora_v_down": (extra, r.lora_rank, D), "lora_v_up": (extra, m.kv_dim, r.lora_rank)}),
        (r.kind == "gated", {"depth_gate": (r.last_layers, D, 2 * D), "depth_gate_bias": (r.last_layers, D)}),
        (r.kind == "gated", {"depth_embed": ((r.steps - 1) * r.last_layers, D)}),
    ]
    return {name: shape for is_used, shapes in parts if is_used for name, shape in shapes.items()}


def check_patterns(config: Config, origin: str) -> None:
    """Raise InputError for a `quant.keep_fp16` pattern that matches no stored tensor and so would have no effect."""
    plans = plan_tensors(parameter_shapes(config), config.quant)
    names = [*plans, *(stored for plan in plans.values() for stored in plan.stored_names)]
    for pattern in config.quant.keep_fp16:
        if not any(fnmatchcase(name, pattern) for name in names):
            fix = "matches no tensor; names are such as embed, attn_k, mlp_up.3"
            raise InputError(origin, "quant.keep_fp16", pattern, fix)


def num_params(config: Config) -> int:
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())
