"""The tensor class of each matrix. Torch-free."""

from typing import Literal

TensorClass = Literal["mlp", "attn", "embed", "bigram", "value_embed", "other"]
TENSOR_CLASSES: tuple[TensorClass, ...] = ("mlp", "attn", "embed", "bigram", "value_embed", "other")

_MATRICES: dict[TensorClass, str] = {
    "attn": "attn_q attn_k attn_v attn_o",
    "mlp": "mlp_up mlp_down",
    "embed": "embed",
    "bigram": "bigram_table bigram_proj",
    "value_embed": "value_embed_table value_embed_proj",
    "other": "lora_q_down lora_q_up lora_v_down lora_v_up depth_gate",
}
CLASS_OF = {name: tensor_class for tensor_class, names in _MATRICES.items() for name in names.split()}
"""Every matrix of the model. All other parameters are control tensors: gains, scales, mixes, gate vectors."""
