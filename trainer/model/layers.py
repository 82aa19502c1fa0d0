"""The layers of the base stack as pure functions of activations and weights.

Shape suffixes: B batch, T time, D model dim, H query heads, K key/value heads, G = H / K query heads per KV head,
N head dim, V vocabulary, F hidden units. Quantization happens elsewhere: these functions take weights ready to use.
Sources: parameter-golf PRs 315 and 549 (the base stack).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x_BTD: Tensor) -> Tensor:
    """Normalize the last dim by its root mean square, without learned weights.

    The epsilon is torch's default, that of float32 (1.2e-7), as in the scripts. Initial embeddings have a mean square of
    2.5e-5, so a larger epsilon would shrink them: 1e-6 by 2 %.
    """
    return F.rms_norm(x_BTD, (x_BTD.size(-1),))


def rotate(x_BHTN: Tensor, inv_freq: Tensor) -> Tensor:
    """Apply RoPE to the first dims of each head of queries or keys; the others stay unchanged (partial RoPE).

    inv_freq: (rope_dims / 2,) float32, radians per position.
    """
    half = inv_freq.numel()
    positions = torch.arange(x_BHTN.size(-2), device=x_BHTN.device, dtype=torch.float32)
    angle_TR = torch.outer(positions, inv_freq)
    cos, sin = angle_TR.cos().to(x_BHTN.dtype), angle_TR.sin().to(x_BHTN.dtype)
    first, second, rest = x_BHTN[..., :half], x_BHTN[..., half : 2 * half], x_BHTN[..., 2 * half :]
    return torch.cat((first * cos + second * sin, second * cos - first * sin, rest), dim=-1)


def remove_self_value(y_BHTN: Tensor, v_BKTN: Tensor) -> Tensor:
    """XSA: subtract from each head's output its projection on the token's own normalized value vector."""
    B, H, T, N = y_BHTN.shape
    K = v_BKTN.size(1)
    y = y_BHTN.reshape(B, K, H // K, T, N)
    v = F.normalize(v_BKTN, dim=-1).unsqueeze(2)
    return (y - (y * v).sum(-1, keepdim=True) * v).reshape(B, H, T, N)


def attention(
    x_BTD: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, q_gain_H: Tensor, inv_freq: Tensor, *,
    kv_heads: int, is_xsa: bool, extra_q: Tensor | None = None, extra_v: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Compute causal grouped-query attention with RMS-normalized queries and keys.

    Args:
        x_BTD: normed input.
        w_q, w_o: (D, D); w_k, w_v: (K * N, D). Rows are outputs.
        q_gain_H: learned gain of each query head.
        extra_q, extra_v: (B, T, D) and (B, T, K * N), added to queries and values before the heads are split
            (LoRA of a later pass, value embedding).
    """
    B, T, D = x_BTD.shape
    H = q_gain_H.numel()
    N = D // H
    q, k, v = F.linear(x_BTD, w_q), F.linear(x_BTD, w_k), F.linear(x_BTD, w_v)
    if extra_q is not None:
        q = q + extra_q
    if extra_v is not None:
        v = v + extra_v
    q = q.view(B, T, H, N).transpose(1, 2)
    k = k.view(B, T, kv_heads, N).transpose(1, 2)
    v = v.view(B, T, kv_heads, N).transpose(1, 2).to(q.dtype)
    q = rotate(rms_norm(q), inv_freq) * q_gain_H.to(q.dtype)[:, None, None]
    k = rotate(rms_norm(k), inv_freq)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=kv_heads != H)
    if is_xsa:
        y = remove_self_value(y, v)
    return F.linear(y.transpose(1, 2).reshape(B, T, D), w_o)


def mlp(x_BTD: Tensor, w_up_FD: Tensor, w_down_DF: Tensor, leaky_slope: float) -> Tensor:
    """leaky_relu(x W_up, slope)^2 W_down. Slope 0 is relu^2 (arXiv:2109.08668)."""
    return F.linear(F.leaky_relu(F.linear(x_BTD, w_up_FD), leaky_slope).square(), w_down_DF)


def smear(x_BTD: Tensor, gate_D: Tensor) -> Tensor:
    """SmearGate: blend each position with the one before it, per dim. The first position has no predecessor (0)."""
    g = torch.sigmoid(gate_D.to(x_BTD.dtype))
    previous = F.pad(x_BTD[:, :-1], (0, 0, 1, 0))
    return (1 - g) * x_BTD + g * previous
