"""Training written from the definitions alone: one matrix per layer, one optimizer state per matrix, float32, no banks.

It shares no arithmetic with the trainer. It covers the families of the challenge's baseline and of PR 975.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from trainer.config import Config

MATRICES = ("attn_q", "attn_k", "attn_v", "attn_o", "mlp_up", "mlp_down")
TABLES = ("embed", "bigram_table", "value_embed_table")
OF_ALL_LAYERS = (*MATRICES, "q_gain", "attn_scale", "mlp_scale", "resid_mix")


def norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 2.0**-23).sqrt()


def rotary(x: Tensor, dims: int, base: float) -> Tensor:
    """Multiply the complex numbers (x[i], x[i + dims / 2]) of each position by exp(-i angle). x: (T, N)."""
    pairs = torch.complex(x[:, : dims // 2], x[:, dims // 2 : dims])
    angle = torch.arange(len(x))[:, None] * base ** -(torch.arange(0, dims, 2) / dims)
    turned = pairs * torch.polar(torch.ones_like(angle), -angle)
    return torch.cat((turned.real, turned.imag, x[:, dims:]), dim=1)


class Reference:
    """The weights as a list of layers, and the loss of one sequence after the other."""

    def __init__(self, config: Config, initial: Mapping[str, Tensor]) -> None:
        self.model = config.model
        self.layers = [
            {name: nn.Parameter(initial[name][i].clone()) for name in OF_ALL_LAYERS} for i in range(self.model.layers)
        ]
        self.shared = {name: nn.Parameter(w.clone()) for name, w in initial.items() if name not in OF_ALL_LAYERS}

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for layer in self.layers:
            yield from layer.items()
        yield from self.shared.items()

    def stacked(self) -> dict[str, Tensor]:
        """Return copies of the weights under the trainer's names."""
        banks = {name: torch.stack([layer[name].detach() for layer in self.layers]) for name in OF_ALL_LAYERS}
        return banks | {name: w.detach().clone() for name, w in self.shared.items()}

    def loss(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        losses = [self.nats(row, target) for row, target in zip(inputs_BT, targets_BT, strict=True)]
        return torch.stack(losses).mean()

    def nats(self, row: Tensor, targets: Tensor) -> Tensor:
        m, shared = self.model, self.shared
        x = shared["embed"][row]
        if m.bigram.buckets:
            last = m.bigram.buckets - 1
            pairs = zip(row.tolist()[1:], row.tolist(), strict=False)
            bucket = [last] + [((36313 * now) ^ (27191 * before)) % last for now, before in pairs]
            x = x + shared["bigram_table"][bucket] @ shared["bigram_proj"].T * shared["bigram_scale"]
        x = norm(x)
        if m.smear_gate:
            share = shared["smear_gate"].sigmoid()
            x = torch.cat((((1 - share) * x[0])[None], (1 - share) * x[1:] + share * x[:-1]))
        x0, skips, half = x, [], m.layers // 2
        for i, layer in enumerate(self.layers):
            if i >= half and skips:
                x = x + shared["skip_weight"][i - half] * skips.pop()
            x = self.block(i, layer, x, x0, row)
            if i < half:
                skips.append(x)
        logits = norm(x) @ shared["embed"].T
        logits = m.logit_softcap * torch.tanh(logits / m.logit_softcap)
        return (logits.logsumexp(1) - logits[range(len(targets)), targets]).mean()

    def block(self, i: int, layer: dict[str, nn.Parameter], x: Tensor, x0: Tensor, row: Tensor) -> Tensor:
        m = self.model
        depth_scale = (i + 1) ** -0.5 if m.ln_scale else 1.0
        x = layer["resid_mix"][0] * x + layer["resid_mix"][1] * x0
        h = norm(x) * depth_scale
        q, k, v = h @ layer["attn_q"].T, h @ layer["attn_k"].T, h @ layer["attn_v"].T
        if i in m.value_embed.layers:
            extra = self.shared["value_embed_table"][row] @ self.shared["value_embed_proj"].T
            scale = self.shared["value_embed_layer_scale"][m.value_embed.layers.index(i)]
            v = v + extra * self.shared["value_embed_scale"] * scale
        size, outputs = m.head_dim, []
        future = torch.ones(len(row), len(row)).triu(1).bool()
        for head in range(m.heads):
            group = head // (m.heads // m.kv_heads)
            own_q, own_k = q[:, head * size : (head + 1) * size], k[:, group * size : (group + 1) * size]
            own_v = v[:, group * size : (group + 1) * size]
            own_q = rotary(norm(own_q), m.rope_dims or size, m.rope_base) * layer["q_gain"][head]
            own_k = rotary(norm(own_k), m.rope_dims or size, m.rope_base)
            weights = (own_q @ own_k.T / math.sqrt(size)).masked_fill(future, -math.inf).softmax(1)
            y = weights @ own_v
            if i >= m.layers - m.xsa_last_n:
                direction = own_v / own_v.norm(dim=1, keepdim=True)
                y = y - (y * direction).sum(1, keepdim=True) * direction
            outputs.append(y)
        x = x + layer["attn_scale"] * (torch.cat(outputs, dim=1) @ layer["attn_o"].T)
        hidden = norm(x) * depth_scale @ layer["mlp_up"].T
        hidden = torch.where(hidden > 0, hidden, m.leaky_slope * hidden) ** 2
        return x + layer["mlp_scale"] * (hidden @ layer["mlp_down"].T)


def orthogonalized(g: Tensor) -> Tensor:
    """Five quintic Newton-Schulz steps on one matrix, with at most as many rows as columns."""
    x = g if g.size(0) <= g.size(1) else g.T
    x = x / (x.square().sum().sqrt() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return x if g.size(0) <= g.size(1) else x.T


def train(config: Config, initial: Mapping[str, Tensor], text: Tensor) -> tuple[list[float], dict[str, Tensor]]:
    """Return the loss of each step and the EMA of the weights. text: (tokens,) int64."""
    t, o = config.train, config.optim
    model = Reference(config, initial)
    matrices = [p for name, p in model.named() if name in MATRICES]
    momenta = [torch.zeros_like(p) for p in matrices]
    tables = [p for name, p in model.named() if name in TABLES]
    scalars = [p for name, p in model.named() if name not in (*MATRICES, *TABLES)]
    adams = [
        (torch.optim.AdamW(chosen, betas=(0.9, 0.95), eps=1e-8, weight_decay=o.adam_weight_decay), lr)
        for chosen, lr in ((tables, o.embed_lr), (scalars, o.scalar_lr))
    ]
    losses, ema = [], model.stacked()
    for step in range(t.iterations):
        first = step * t.batch_tokens
        inputs = text[first : first + t.batch_tokens].view(-1, t.seq_len)
        targets = text[first + 1 : first + 1 + t.batch_tokens].view(-1, t.seq_len)
        for p in (*matrices, *tables, *scalars):
            p.grad = None
        loss = model.loss(inputs, targets)
        loss.backward()
        losses.append(loss.item())
        if t.grad_clip:
            nn.utils.clip_grad_norm_([*matrices, *tables, *scalars], t.grad_clip)
        scale = min(1.0, (t.iterations - step) / o.warmdown.value)
        share = min(1.0, step / o.muon_momentum_steps)
        mu = o.muon_momentum_start + share * (o.muon_momentum - o.muon_momentum_start)
        with torch.no_grad():
            for p, momentum in zip(matrices, momenta, strict=True):
                assert p.grad is not None
                momentum.copy_(mu * momentum + p.grad)
                update = orthogonalized(p.grad + mu * momentum) * max(1.0, p.size(0) / p.size(1)) ** 0.5
                p.copy_(p * (1 - o.matrix_lr * scale * o.weight_decay) - o.matrix_lr * scale * update)
        for adam, lr in adams:
            adam.param_groups[0]["lr"] = lr * scale
            adam.step()
        ema = {
            name: config.average.decay * ema[name] + (1 - config.average.decay) * w
            for name, w in model.stacked().items()
        }
    return losses, ema
