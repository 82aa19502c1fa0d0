"""The tensor class of each matrix. Torch-free."""

from typing import Literal

TensorClass = Literal["mlp", "attn", "embed", "bigram", "value_embed", "other"]
TENSOR_CLASSES: tuple[TensorClass, ...] = ("mlp", "attn", "embed", "bigram", "value_embed", "other")

CLASS_OF: dict[str, TensorClass] = {
    "attn_q": "attn",
    "attn_k": "attn",
    "attn_v": "attn",
    "attn_o": "attn",
    "mlp_up": "mlp",
    "mlp_down": "mlp",
    "embed": "embed",
    "bigram_table": "bigram",
    "bigram_proj": "bigram",
    "value_embed_table": "value_embed",
    "value_embed_proj": "value_embed",
    "lora_q_down": "other",
    "lora_q_up": "other",
    "lora_v_down": "other",
    "lora_v_up": "other",
    "depth_gate": "other",
}
"""Every matrix of the model. All other parameters are control tensors: gains, scales, mixes, gate vectors."""
