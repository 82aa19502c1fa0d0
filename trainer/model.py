"""The language model: parameters in stacked banks, forward pass of the base stack.

Matrices of all layers live in six banks (`[layers, out, in]`), so that Muon, quantization and averaging are batched
over layers. The module's parameters are the *compute* weights; the optimizer never sees them (see `weights.py`), and
no quantization code is here for torch.compile to fold away.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.embeddings import bigram_embedding, value_embedding
from trainer.layers import attention, mlp, rms_norm, smear, softcap

BANKS = ("attn_q", "attn_k", "attn_v", "attn_o", "mlp_up", "mlp_down")
BIGRAM_INIT_SCALE = 0.05
VALUE_EMBED_INIT_SCALE = 0.1
SIDE_TABLE_INIT_STD = 0.01


class Model(nn.Module):
    """forward(tokens, targets) -> nats per target. Built by `build_model`, so that every rank starts equal."""

    inv_freq: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        m = config.model
        self.config = config
        L, D = m.layers, m.dim

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape))

        def full(value: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.full(shape, value))

        self.attn_q = zeros(L, D, D)
        self.attn_k = zeros(L, m.kv_dim, D)
        self.attn_v = zeros(L, m.kv_dim, D)
        self.attn_o = zeros(L, D, D)
        self.mlp_up = zeros(L, m.mlp_dim, D)
        self.mlp_down = zeros(L, D, m.mlp_dim)
        self.embed = zeros(m.vocab_size, D)
        self.q_gain = full(m.qk_gain_init, L, m.heads)
        self.attn_scale = full(1.0, L, D)
        self.mlp_scale = full(1.0, L, D)
        if m.resid_mix:
            self.resid_mix = nn.Parameter(torch.stack((torch.ones(L, D), torch.zeros(L, D)), dim=1))
        if m.deep_delta:
            self.deep_delta = zeros(L, D)
        if m.unet_skips and self.num_skips:
            self.skip_weight = full(1.0, self.num_skips, D)
        if m.smear_gate:
            self.smear_gate = zeros(D)
        if m.bigram.buckets:
            self.bigram_table = zeros(m.bigram.buckets, m.bigram.dim)
            self.bigram_proj = zeros(D, m.bigram.dim)
            self.bigram_scale = full(BIGRAM_INIT_SCALE, 1)
        if m.value_embed.dim:
            self.value_embed_table = zeros(m.vocab_size, m.value_embed.dim)
            self.value_embed_proj = zeros(m.kv_dim, m.value_embed.dim)
            self.value_embed_scale = full(VALUE_EMBED_INIT_SCALE, 1)
            self.value_embed_layer_scale = full(1.0, len(m.value_embed.layers))
        rope_dims = m.rope_dims or m.head_dim
        exponent = torch.arange(0, rope_dims, 2, dtype=torch.float32) / rope_dims
        self.register_buffer("inv_freq", m.rope_base**-exponent, persistent=False)

    @property
    def num_skips(self) -> int:
        """Skips from the first half of the layers to the second; the middle layer of an odd number has none."""
        return min(self.config.model.layers // 2, self.config.model.layers - self.config.model.layers // 2)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Matrices orthogonal, projections back into the residual stream zero, embedding normal. On CPU, by `seed`."""
        m = self.config.model
        generator = torch.Generator().manual_seed(seed)
        for name in ("attn_q", "attn_k", "attn_v", "mlp_up"):
            for layer in getattr(self, name):
                nn.init.orthogonal_(layer, generator=generator)
        nn.init.normal_(self.embed, std=m.embed_init_std, generator=generator)
        # Side embeddings: the projection is zero, so that the first step sees the plain model, but the table is not;
        # with both at zero each would have a zero gradient for ever, and the technique would never run.
        for name in ("bigram_table", "value_embed_table"):
            if hasattr(self, name):
                nn.init.normal_(getattr(self, name), std=SIDE_TABLE_INIT_STD, generator=generator)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Nats per target.

        Args:
            tokens_BT: (B, T) int64 inputs; targets_BT: (B, T) int64, the next tokens.
        Returns:
            (B, T) float32 cross entropy, in nats.
        """
        hidden = self.hidden(tokens_BT)
        logits = F.linear(rms_norm(hidden), self.embed)
        logits = softcap(logits.float(), self.config.model.logit_softcap)
        losses = F.cross_entropy(logits.view(-1, logits.size(-1)), targets_BT.reshape(-1), reduction="none")
        return losses.view(targets_BT.shape)

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Embedding and all layers: (B, T) tokens -> (B, T, D), before the final norm."""
        x = self.embed_tokens(tokens_BT)
        x0 = x
        L = self.config.model.layers
        skips: list[Tensor] = []
        use_skips = self.config.model.unet_skips
        for layer in range(L):
            if use_skips and layer >= L // 2 and skips:
                x = x + self.skip_weight[self.num_skips - len(skips)].to(x.dtype) * skips.pop()
            x = self.block(x, x0, tokens_BT, layer)
            if use_skips and layer < L // 2:
                skips.append(x)
        return x

    def embed_tokens(self, tokens_BT: Tensor) -> Tensor:
        m = self.config.model
        x = F.embedding(tokens_BT, self.embed)
        if m.bigram.buckets:
            x = x + bigram_embedding(tokens_BT, self.bigram_table, self.bigram_proj, self.bigram_scale)
        x = rms_norm(x)
        return smear(x, self.smear_gate) if m.smear_gate else x

    def block(self, x: Tensor, x0: Tensor, tokens_BT: Tensor, layer: int) -> Tensor:
        """One transformer block: mix in x0, attention, MLP. (B, T, D) -> (B, T, D)."""
        m = self.config.model
        norm_scale = 1 / math.sqrt(layer + 1) if m.ln_scale else 1.0
        if m.resid_mix:
            mix = self.resid_mix[layer].to(x.dtype)
            x = mix[0] * x + mix[1] * x0
        attn_out = attention(
            rms_norm(x) * norm_scale,
            self.attn_q[layer],
            self.attn_k[layer],
            self.attn_v[layer],
            self.attn_o[layer],
            self.q_gain[layer],
            self.inv_freq,
            kv_heads=m.kv_heads,
            is_xsa=layer >= m.layers - m.xsa_last_n,
            extra_v=self.value_embed(tokens_BT, layer),
        )
        residual = x * (1 + self.deep_delta[layer].to(x.dtype)) if m.deep_delta else x
        x = residual + self.attn_scale[layer].to(x.dtype) * attn_out
        mlp_out = mlp(rms_norm(x) * norm_scale, self.mlp_up[layer], self.mlp_down[layer], m.leaky_slope)
        return x + self.mlp_scale[layer].to(x.dtype) * mlp_out

    def value_embed(self, tokens_BT: Tensor, layer: int) -> Tensor | None:
        layers = self.config.model.value_embed.layers
        if layer not in layers:
            return None
        ve = value_embedding(tokens_BT, self.value_embed_table, self.value_embed_proj, self.value_embed_scale)
        return ve * self.value_embed_layer_scale[layers.index(layer)].to(ve.dtype)


def build_model(config: Config, device: torch.device | str) -> Model:
    """An initialized model on `device`. The same config and seed give the same weights on every rank and device."""
    model = Model(config)
    model.initialize(config.seed)
    return model.to(device)


def num_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
