"""The language model: its parameters and the forward pass.

The matrices of all layers are stacked in six banks, (layers, out, in), so that Muon, quantization and averaging work on all
layers at once. The module's parameters are the compute weights; the optimizer updates the master weights
(`trainer/optim/weights.py`). No quantization happens here, so torch.compile cannot fold it away.
"""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.embeddings import bigram_bucket, project_rows
from trainer.model.layers import attention, mlp, rms_norm, smear
from trainer.model.recurrence import GATE_BIAS_INIT, BlockCall, block_calls, gated_update, low_rank
from trainer.model.shapes import parameter_shapes

BIGRAM_INIT_SCALE = 0.05
VALUE_EMBED_INIT_SCALE = 0.1
VALUE_TABLE_INIT_STD = 0.01
DRAWN = (
    "attn_q", "attn_k", "attn_v", "mlp_up", "embed", "bigram_proj", "value_embed_table", "value_embed_proj",
    "lora_q_down", "lora_v_down", "depth_gate",
)  # fmt: skip
"""Parameters with random initial values, in the order of the draws: what is optional comes last, so that arms with and
without it have the same other weights. PR 1032 zeroes its depth gates, but a later rule for all Linear layers overwrites it.
"""


class Model(nn.Module):
    """forward(tokens, targets) -> nats per target. Its parameters are those of `parameter_shapes`, at first all zero."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        m = config.model
        self.config = config
        for name, shape in parameter_shapes(config).items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.calls = {is_looped: block_calls(config, is_looped) for is_looped in (False, True)}
        self.num_skips = len(self.calls[False]) // 2 if m.unet_skips else 0  # from the first half to the second
        rope_dims = m.rope_dims or m.head_dim
        exponent = torch.arange(0, rope_dims, 2, dtype=torch.float32) / rope_dims
        self.register_buffer("inv_freq", m.rope_base**-exponent, persistent=False)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Tensor: ...  # parameters and buffers

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Set the initial values, drawn on the CPU by `seed`.

        Matrices are uniform or orthogonal (`model.init`), but projections back into the residual stream and the bigram
        table are zero: the first step is then that of a model without them. The token and value embeddings are normal.
        """
        m, r = self.config.model, self.config.recurrence
        generator = torch.Generator().manual_seed(seed)
        constants = {
            "q_gain": m.qk_gain_init, "attn_scale": 1.0, "mlp_scale": 1.0, "skip_weight": 1.0,
            "bigram_scale": BIGRAM_INIT_SCALE, "value_embed_scale": VALUE_EMBED_INIT_SCALE,
            "value_embed_layer_scale": 1.0, "depth_gate_bias": GATE_BIAS_INIT,
        }  # fmt: skip
        for name, parameter in self.named_parameters():
            parameter.fill_(constants.get(name, 0.0))
        if m.resid_mix:
            self.resid_mix[:, 0] = 1.0  # all of x, nothing of x0
        stds = {"embed": m.embed_init_std, "value_embed_table": VALUE_TABLE_INIT_STD}
        if r.lora_rank:
            stds |= {"lora_q_down": 1 / r.lora_rank, "lora_v_down": 1 / r.lora_rank}
        named = dict(self.named_parameters())
        for name in (name for name in DRAWN if name in named):
            if name in stds:
                nn.init.normal_(named[name], std=stds[name], generator=generator)
            else:
                _draw_matrices(named[name], m.init, generator)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor, is_looped: bool = True) -> Tensor:
        """Return the cross entropy of each target.

        Args:
            tokens_BT: (B, T) int64 inputs; targets_BT: (B, T) int64, the next tokens.
            is_looped: for recurrence `partial`, whether the second pass runs.
        Returns:
            (B, T) float32, in nats.
        """
        cap = self.config.model.logit_softcap
        logits = F.linear(rms_norm(self.hidden(tokens_BT, is_looped)), self.embed)
        logits = cap * torch.tanh(logits.float() / cap)
        losses = F.cross_entropy(logits.view(-1, logits.size(-1)), targets_BT.reshape(-1), reduction="none")
        return losses.view(targets_BT.shape)

    def hidden(self, tokens_BT: Tensor, is_looped: bool) -> Tensor:
        """Return the output of the last layer before the final norm: (B, T) tokens -> (B, T, D)."""
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
        """Gated recurrence: run the last layers again, once for every step after the first; blend after every block."""
        r, L = self.config.recurrence, self.config.model.layers
        for call in range((r.steps - 1) * r.last_layers):
            step, row = divmod(call, r.last_layers)
            layer = L - r.last_layers + row
            new = self.block(x + self.depth_embed[call].to(x.dtype), x0, tokens_BT, BlockCall(layer, step + 1))
            x = gated_update(new, x, self.depth_gate[row], self.depth_gate_bias[row])
        return x

    def embed_tokens(self, tokens_BT: Tensor) -> Tensor:
        m = self.config.model
        x = F.embedding(tokens_BT, self.embed)
        if torch.is_autocast_enabled(x.device.type):  # in bf16 the residual stream needs half the memory traffic
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if m.bigram.buckets:
            buckets_BT = bigram_bucket(tokens_BT, m.bigram.buckets)
            x = x + project_rows(buckets_BT, self.bigram_table, self.bigram_proj, self.bigram_scale)
        x = rms_norm(x)
        return smear(x, self.smear_gate) if m.smear_gate else x

    def block(self, x: Tensor, x0: Tensor, tokens_BT: Tensor, call: BlockCall) -> Tensor:
        """Run one transformer block, (B, T, D) -> (B, T, D): mix in x0, attention, MLP."""
        m, layer = self.config.model, call.layer
        norm_scale = 1 / math.sqrt(layer + 1) if m.ln_scale else 1.0
        if m.resid_mix:
            mix = self.resid_mix[layer].to(x.dtype)
            x = mix[0] * x + mix[1] * x0
        if m.deep_delta:
            x = x * (1 + self.deep_delta[layer].to(x.dtype))
        normed = rms_norm(x) * norm_scale
        extra_q, extra_v = self.adapters(normed, tokens_BT, call)
        attn_out = attention(
            normed, self.attn_q[layer], self.attn_k[layer], self.attn_v[layer], self.attn_o[layer], self.q_gain[layer],
            self.inv_freq, kv_heads=m.kv_heads, is_xsa=layer >= m.layers - m.xsa_last_n, extra_q=extra_q,
            extra_v=extra_v,
        )  # fmt: skip
        x = x + self.attn_scale[layer].to(x.dtype) * attn_out
        mlp_out = mlp(rms_norm(x) * norm_scale, self.mlp_up[layer], self.mlp_down[layer], m.leaky_slope)
        return x + self.mlp_scale[layer].to(x.dtype) * mlp_out

    def adapters(self, normed: Tensor, tokens_BT: Tensor, call: BlockCall) -> tuple[Tensor | None, Tensor | None]:
        """Return what is added to queries and to values: the LoRA of a later pass and the value embedding."""
        m, extra_v = self.config.model, None
        if call.layer in m.value_embed.layers:
            ve = project_rows(tokens_BT, self.value_embed_table, self.value_embed_proj, self.value_embed_scale)
            extra_v = ve * self.value_embed_layer_scale[m.value_embed.layers.index(call.layer)].to(ve.dtype)
        if not (self.config.recurrence.lora_rank and call.pass_index):
            return None, extra_v
        i = (call.pass_index - 1) * m.layers + call.layer
        lora_v = low_rank(normed, self.lora_v_down[i], self.lora_v_up[i])
        return low_rank(normed, self.lora_q_down[i], self.lora_q_up[i]), lora_v if extra_v is None else extra_v + lora_v


def _draw_matrices(w: Tensor, init: str, generator: torch.Generator) -> None:
    """Fill a matrix or a bank of matrices: orthogonal, or uniform in +-1/sqrt(inputs), torch's default for Linear."""
    if init == "uniform":
        bound = 1 / math.sqrt(w.size(-1))
        nn.init.uniform_(w, -bound, bound, generator=generator)
        return
    for matrix in w if w.dim() == 3 else [w]:
        nn.init.orthogonal_(matrix, generator=generator)


def build_model(config: Config, device: torch.device | str) -> Model:
    """Return an initialized model on `device`. Equal configs give equal weights on every rank and device."""
    model = Model(config)
    model.initialize(config.seed)
    return model.to(device)


def num_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
