"""The mixture: a small network of DeepSeek V3's kind in PyTorch. Knows tensors, no text, no files.

Latent attention, a dense layer before mixtures of experts, and a layer that predicts one token
further (DeepSeek-AI 2024, arXiv:2412.19437). Parameters have the names of the published
checkpoints but for the experts, which are stacked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from model import PLAIN, FeedForward, Precision, attend, product
from torch import Tensor, nn
from torch.nn import functional as F

# What a step moves the correction of an expert by that had too many rows, or too few.
BALANCE = 1e-3


@dataclass(frozen=True)
class MixtureShape:
    """The sizes of the network; the names are those of a Hugging Face `config.json`."""

    vocab_size: int = 640
    hidden_size: int = 160
    intermediate_size: int = 384
    moe_intermediate_size: int = 192
    num_hidden_layers: int = 4
    num_nextn_predict_layers: int = 1
    num_attention_heads: int = 6
    num_key_value_heads: int = 6
    q_lora_rank: int = 96
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 32
    qk_rope_head_dim: int = 16
    v_head_dim: int = 32
    first_k_dense_replace: int = 1
    n_routed_experts: int = 8
    n_shared_experts: int = 1
    num_experts_per_tok: int = 2
    n_group: int = 4
    topk_group: int = 2
    routed_scaling_factor: float = 1.5
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    def as_dict(self) -> dict[str, int | float]:
        return asdict(self)


def rotary_table(shape: MixtureShape) -> tuple[Tensor, Tensor]:
    """Cosines and sines [positions, qk_rope_head_dim / 2], one for each pair of elements."""
    width = shape.qk_rope_head_dim
    frequencies = shape.rope_theta ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.outer(torch.arange(shape.max_position_embeddings).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate_pairs(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns neighbouring elements of x [..., positions, width]. The turned pairs come back as two
    halves: queries and keys alike, so that no score notices."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat([even * cosine - odd * sine, odd * cosine + even * sine], dim=-1)


class LatentAttention(nn.Module):
    """Causal attention whose keys and values are made of one small latent a position."""

    def __init__(self, shape: MixtureShape) -> None:
        super().__init__()
        self.shape = shape
        heads, hidden = shape.num_attention_heads, shape.hidden_size
        nope, rope, value = shape.qk_nope_head_dim, shape.qk_rope_head_dim, shape.v_head_dim
        self.q_a_proj = nn.Linear(hidden, shape.q_lora_rank, bias=False)
        self.q_a_layernorm = nn.RMSNorm(shape.q_lora_rank, eps=1e-6)
        self.q_b_proj = nn.Linear(shape.q_lora_rank, heads * (nope + rope), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, shape.kv_lora_rank + rope, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(shape.kv_lora_rank, eps=1e-6)
        self.kv_b_proj = nn.Linear(shape.kv_lora_rank, heads * (nope + value), bias=False)
        self.o_proj = nn.Linear(heads * value, hidden, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], precision: Precision) -> Tensor:
        shape, (batch, length, _) = self.shape, x.shape
        nope, rope, value = shape.qk_nope_head_dim, shape.qk_rope_head_dim, shape.v_head_dim
        query = self.q_a_layernorm(product(x, self.q_a_proj.weight, precision))
        query = product(query, self.q_b_proj.weight, precision)
        query = query.view(batch, length, -1, nope + rope).transpose(1, 2)
        query = torch.cat([query[..., :nope], rotate_pairs(query[..., nope:], *rotary)], dim=-1)
        latent = product(x, self.kv_a_proj_with_mqa.weight, precision)
        turned = rotate_pairs(latent[..., shape.kv_lora_rank :], *rotary)
        latent = self.kv_a_layernorm(latent[..., : shape.kv_lora_rank])
        made = product(latent, self.kv_b_proj.weight, precision)
        made = made.view(batch, length, -1, nope + value).transpose(1, 2)
        turned = turned[:, None].expand(-1, shape.num_attention_heads, -1, -1)
        key = torch.cat([made[..., :nope], turned], dim=-1)
        mixed = attend(query, key, made[..., nope:]).transpose(1, 2)
        return product(mixed.reshape(batch, length, -1), self.o_proj.weight, precision)


class Router(nn.Module):
    """Which experts a row goes to, and with which weights."""

    e_score_correction_bias: Tensor

    def __init__(self, shape: MixtureShape) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.empty(shape.n_routed_experts, shape.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(shape.n_routed_experts))
        self.load = torch.zeros(shape.n_routed_experts)  # rows since it was last looked at

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The chosen experts [rows, k] and their weights, of x [rows, hidden]."""
        shape = self.shape
        scores = F.linear(x.float(), self.weight.float()).sigmoid()
        with torch.no_grad():
            each = shape.n_routed_experts // shape.n_group
            corrected = (scores + self.e_score_correction_bias).view(len(x), shape.n_group, each)
            groups = corrected.topk(2, dim=-1).values.sum(-1).topk(shape.topk_group).indices
            open_ones = torch.zeros(len(x), shape.n_group, dtype=torch.bool)
            open_ones = open_ones.scatter(1, groups, True)[..., None]
            corrected = corrected.masked_fill(~open_ones, float("-inf")).flatten(1)
            chosen = corrected.topk(shape.num_experts_per_tok).indices
            self.load += torch.bincount(chosen.flatten(), minlength=shape.n_routed_experts)
        weights = scores.gather(1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return chosen, weights * shape.routed_scaling_factor

    def balance(self) -> None:
        """Makes experts with fewer rows than the mean likelier, and others less: no loss has a
        term for it (arXiv:2408.15664)."""
        self.e_score_correction_bias += BALANCE * torch.sign(self.load.mean() - self.load)
        self.load.zero_()


class Mixture(nn.Module):
    """The experts of a layer beside one that every row goes to."""

    def __init__(self, shape: MixtureShape) -> None:
        super().__init__()
        experts, hidden, width = (
            shape.n_routed_experts, shape.hidden_size, shape.moe_intermediate_size,
        )  # fmt: skip
        self.gate = Router(shape)
        self.gate_proj = nn.Parameter(torch.empty(experts, width, hidden))
        self.up_proj = nn.Parameter(torch.empty(experts, width, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, width))
        self.shared_experts = FeedForward(hidden, width * shape.n_shared_experts)

    def forward(self, x: Tensor, precision: Precision) -> Tensor:
        rows = x.flatten(0, 1)
        chosen, weights = self.gate(rows)
        # Rows are sorted by expert, so that each expert has one product.
        order = chosen.flatten().argsort(stable=True)
        places = order // chosen.shape[1]
        counts = torch.bincount(chosen.flatten(), minlength=len(self.gate_proj)).tolist()
        made = []
        for expert, part in enumerate(rows[places].split(counts)):
            gate = F.silu(product(part, self.gate_proj[expert], precision))
            up = product(part, self.up_proj[expert], precision)
            made.append(product(gate * up, self.down_proj[expert], precision))
        weighted = torch.cat(made) * weights.flatten()[order, None].to(rows.dtype)
        summed = torch.zeros_like(rows).index_add(0, places, weighted.to(rows.dtype))
        return summed.view_as(x) + self.shared_experts(x, precision)


class Layer(nn.Module):
    """One layer of the network."""

    def __init__(self, shape: MixtureShape, *, dense: bool) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = LatentAttention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.mlp = (
            FeedForward(shape.hidden_size, shape.intermediate_size) if dense else Mixture(shape)
        )

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], precision: Precision) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, precision)
        return x + self.mlp(self.post_attention_layernorm(x), precision)


class FurtherLayer(Layer):
    """The layer that predicts one token further, from a hidden state and the token after it."""

    def __init__(self, shape: MixtureShape) -> None:
        super().__init__(shape, dense=False)
        hidden = shape.hidden_size
        self.enorm = nn.RMSNorm(hidden, eps=shape.rms_norm_eps)
        self.hnorm = nn.RMSNorm(hidden, eps=shape.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * hidden, hidden, bias=False)
        self.shared_head = nn.ModuleDict({"norm": nn.RMSNorm(hidden, eps=shape.rms_norm_eps)})

    def further(
        self, embedded: Tensor, hidden: Tensor, rotary: tuple[Tensor, Tensor], precision: Precision
    ) -> Tensor:
        """The normed hidden states of the tokens after ``embedded``, those of the tokens before
        them being ``hidden``; both [batch, length, hidden]."""
        both = torch.cat([self.enorm(embedded), self.hnorm(hidden)], dim=-1)
        x = self(product(both, self.eh_proj.weight, precision), rotary, precision)
        return self.shared_head["norm"](x)


class MixtureModel(nn.Module):
    """Embedding, layers, norm, vocabulary projection, and the layer that looks one token on."""

    def __init__(self, shape: MixtureShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        count = shape.num_hidden_layers
        layers: list[Layer] = [
            Layer(shape, dense=place < shape.first_k_dense_replace) for place in range(count)
        ]
        self.layers = nn.ModuleList([*layers, FurtherLayer(shape)])
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        cosine, sine = rotary_table(shape)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            # Layers that write to the residual stream start smaller, so depth adds no variance.
            writes = name.endswith(("o_proj.weight", "down_proj", "down_proj.weight"))
            scale = (2 * self.shape.num_hidden_layers) ** -0.5 if writes else 1.0
            fan_in = 1.0 if "embed" in name else (256 / parameter.shape[-1]) ** 0.5
            nn.init.normal_(parameter, std=0.04 * scale * fan_in)

    def routers(self) -> Iterator[tuple[str, Router]]:
        for name, module in self.named_modules():
            if isinstance(module, Router):
                yield name, module

    def after_step(self) -> None:
        for _, router in self.routers():
            router.balance()

    def _rotary(self, length: int) -> tuple[Tensor, Tensor]:
        return self.cosine[:length], self.sine[:length]

    def hidden(self, tokens: Tensor, precision: Precision = PLAIN) -> Tensor:
        """The normed last hidden states [batch, length, hidden]."""
        x = self.embed_tokens(tokens)
        for layer in self.layers[:-1]:
            x = layer(x, self._rotary(tokens.shape[1]), precision)
        return self.norm(x)

    def further(self, tokens: Tensor, hidden: Tensor, precision: Precision = PLAIN) -> Tensor:
        """The further layer's normed hidden states [batch, length, hidden], whose logits are of the
        tokens after ``tokens``; ``hidden`` are the states of the tokens before each."""
        layer, rotary = self.layers[-1], self._rotary(tokens.shape[1])
        assert isinstance(layer, FurtherLayer)
        return layer.further(self.embed_tokens(tokens), hidden, rotary, precision)

    def logits(self, hidden: Tensor, precision: Precision = PLAIN) -> Tensor:
        """Scores over the vocabulary, for any choice of hidden rows."""
        return product(hidden, self.lm_head.weight, precision)
