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
from trainer.model.embeddings import bigram_embedding, value_embedding
from trainer.model.layers import attention, mlp, rms_norm, smear, softcap
from trainer.model.recurrence import GATE_BIAS_INIT, BlockCall, block_calls, gated_update, low_rank, num_skips

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
        self.calls = {is_looped: block_calls(config, is_looped) for is_looped in (False, True)}
        self.num_skips = num_skips(config) if m.unet_skips else 0
        if self.num_skips:
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
        r = config.recurrence
        if r.lora_rank:
            extra = (r.loops - 1) * L
            self.lora_q_down, self.lora_q_up = zeros(extra, r.lora_rank, D), zeros(extra, D, r.lora_rank)
            self.lora_v_down, self.lora_v_up = zeros(extra, r.lora_rank, D), zeros(extra, m.kv_dim, r.lora_rank)
        if r.kind == "gated":
            self.depth_gate, self.depth_gate_bias = zeros(D, 2 * D), full(GATE_BIAS_INIT, D)
            self.depth_embed = zeros(r.steps - 1, D)
        rope_dims = m.rope_dims or m.head_dim
        exponent = torch.arange(0, rope_dims, 2, dtype=torch.float32) / rope_dims
        self.register_buffer("inv_freq", m.rope_base**-exponent, persistent=False)

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
        if self.config.recurrence.lora_rank:
            for down in (self.lora_q_down, self.lora_v_down):
                nn.init.normal_(down, std=1 / self.config.recurrence.lora_rank, generator=generator)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor, is_looped: bool = True) -> Tensor:
        """Nats per target.

        Args:
            tokens_BT: (B, T) int64 inputs; targets_BT: (B, T) int64, the next tokens.
            is_looped: for recurrence `partial`, whether the second pass runs.
        Returns:
            (B, T) float32 cross entropy, in nats.
        """
        hidden = self.hidden(tokens_BT, is_looped)
        logits = F.linear(rms_norm(hidden), self.embed)
        logits = softcap(logits.float(), self.config.model.logit_softcap)
        losses = F.cross_entropy(logits.view(-1, logits.size(-1)), targets_BT.reshape(-1), reduction="none")
        return losses.view(targets_BT.shape)

    def hidden(self, tokens_BT: Tensor, is_looped: bool) -> Tensor:
        """Embedding and all layers: (B, T) tokens -> (B, T, D), before the final norm."""
        x = self.embed_tokens(tokens_BT)
        x0 = x
        skips: list[Tensor] = []
        pushed = 0
        for call in self.calls[is_looped]:
            is_second_half = pushed == self.num_skips
            if skips and is_second_half and call.takes_part_in_skips:
                x = x + self.skip_weight[self.num_skips - len(skips)].to(x.dtype) * skips.pop()
            x = self.block(x, x0, tokens_BT, call)
            if not is_second_half and call.takes_part_in_skips:
                skips.append(x)
                pushed += 1
        return self.run_again(x, x0, tokens_BT) if self.config.recurrence.kind == "gated" else x

    def run_again(self, x: Tensor, x0: Tensor, tokens_BT: Tensor) -> Tensor:
        """Gated recurrence: the last layers once more for every step after the first."""
        r, L = self.config.recurrence, self.config.model.layers
        for step in range(1, r.steps):
            new = x + self.depth_embed[step - 1].to(x.dtype)
            for layer in range(L - r.last_layers, L):
                new = self.block(new, x0, tokens_BT, BlockCall(layer, step))
            x = gated_update(new, x, self.depth_gate, self.depth_gate_bias)
        return x

    def embed_tokens(self, tokens_BT: Tensor) -> Tensor:
        m = self.config.model
        x = F.embedding(tokens_BT, self.embed)
        if torch.is_autocast_enabled(x.device.type):  # the residual stream too, or half the memory traffic is fp32
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if m.bigram.buckets:
            x = x + bigram_embedding(tokens_BT, self.bigram_table, self.bigram_proj, self.bigram_scale)
        x = rms_norm(x)
        return smear(x, self.smear_gate) if m.smear_gate else x

    def block(self, x: Tensor, x0: Tensor, tokens_BT: Tensor, call: BlockCall) -> Tensor:
        """One transformer block: mix in x0, attention, MLP. (B, T, D) -> (B, T, D)."""
        m, layer = self.config.model, call.layer
        norm_scale = 1 / math.sqrt(layer + 1) if m.ln_scale else 1.0
        if m.resid_mix:
            mix = self.resid_mix[layer].to(x.dtype)
            x = mix[0] * x + mix[1] * x0
        normed = rms_norm(x) * norm_scale
        extra_q, extra_v = self.adapters(normed, tokens_BT, call)
        attn_out = attention(
            normed,
            self.attn_q[layer],
            self.attn_k[layer],
            self.attn_v[layer],
            self.attn_o[layer],
            self.q_gain[layer],
            self.inv_freq,
            kv_heads=m.kv_heads,
            is_xsa=layer >= m.layers - m.xsa_last_n,
            extra_q=extra_q,
            extra_v=extra_v,
        )
        residual = x * (1 + self.deep_delta[layer].to(x.dtype)) if m.deep_delta else x
        x = residual + self.attn_scale[layer].to(x.dtype) * attn_out
        mlp_out = mlp(rms_norm(x) * norm_scale, self.mlp_up[layer], self.mlp_down[layer], m.leaky_slope)
        return x + self.mlp_scale[layer].to(x.dtype) * mlp_out

    def adapters(self, normed: Tensor, tokens_BT: Tensor, call: BlockCall) -> tuple[Tensor | None, Tensor | None]:
        """What is added to queries and values: value embedding, and the LoRA of a later pass."""
        extra_v = self.value_embed(tokens_BT, call.layer)
        if not (self.config.recurrence.lora_rank and call.pass_index):
            return None, extra_v
        i = (call.pass_index - 1) * self.config.model.layers + call.layer
        lora_v = low_rank(normed, self.lora_v_down[i], self.lora_v_up[i])
        return low_rank(normed, self.lora_q_down[i], self.lora_q_up[i]), lora_v if extra_v is None else extra_v + lora_v

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
