"""The demo network: a small Llama in PyTorch. Knows tensors only, no text and no files."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from quantise import fake_q4, fake_q8_activation
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """The sizes of the network; the names are those of a Hugging Face `config.json`."""

    vocab_size: int = 768
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 5
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 32
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    def as_dict(self) -> dict[str, int | float]:
        return asdict(self)


@dataclass(frozen=True)
class Precision:
    """Which roundings a forward pass imitates."""

    weights_q4: bool = False
    activations_q8: bool = False


PLAIN = Precision()
Q4_WEIGHTS = Precision(weights_q4=True)
Q4 = Precision(weights_q4=True, activations_q8=True)


def product(x: Tensor, weight: Tensor, precision: Precision) -> Tensor:
    """A linear layer without bias, rounded as `precision` asks."""
    if precision.activations_q8:
        x = fake_q8_activation(x)
    if precision.weights_q4:
        weight = fake_q4(weight)
    return F.linear(x, weight)


def rotary_table(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines [positions, head_dim], in the half-split order Hugging Face uses."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    frequencies = shape.rope_theta**-exponents
    angles = torch.outer(torch.arange(shape.max_position_embeddings).float(), frequencies)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn x [..., positions, head_dim] by its rotary angles."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cosine.to(x.dtype) + turned * sine.to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention over [batch, heads, positions, head_dim], written out.

    On a CPU and with rows of some forty tokens this is twelve times as fast, backward
    included, as the library's fused attention. Padding stands at the end of a row, so the
    causal mask alone keeps it out of sight.
    """
    batch, heads, length, width = query.shape
    shared = heads // key.shape[1]
    # The query heads that share a key head are stacked into one taller matrix.
    query = (query * width**-0.5).reshape(-1, shared * length, width)
    key, value = key.reshape(-1, length, width), value.reshape(-1, length, value.shape[-1])
    scores = torch.bmm(query, key.transpose(1, 2)).view(-1, shared, length, length)
    later = torch.full((length, length), float("-inf"), dtype=scores.dtype).triu(1)
    parts = torch.softmax(scores + later, dim=-1).to(value.dtype)
    mixed = torch.bmm(parts.view(-1, shared * length, length), value)
    return mixed.view(batch, heads, length, -1)


class Attention(nn.Module):
    """Causal attention with grouped key and value heads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        query_width = shape.num_attention_heads * shape.head_dim
        value_width = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, query_width, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, value_width, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, value_width, bias=False)
        self.o_proj = nn.Linear(query_width, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], precision: Precision) -> Tensor:
        batch, length, _ = x.shape
        width = self.shape.head_dim
        query = product(x, self.q_proj.weight, precision).view(batch, length, -1, width)
        key = product(x, self.k_proj.weight, precision).view(batch, length, -1, width)
        value = product(x, self.v_proj.weight, precision).view(batch, length, -1, width)
        query = rotate(query.transpose(1, 2), *rotary)
        key = rotate(key.transpose(1, 2), *rotary)
        mixed = attend(query, key, value.transpose(1, 2))
        return product(
            mixed.transpose(1, 2).reshape(batch, length, -1), self.o_proj.weight, precision
        )


class FeedForward(nn.Module):
    """The gated two-layer part of a block."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor, precision: Precision) -> Tensor:
        gate = F.silu(product(x, self.gate_proj.weight, precision))
        up = product(x, self.up_proj.weight, precision)
        return product(gate * up, self.down_proj.weight, precision)


class Block(nn.Module):
    """One layer of the network."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.mlp = FeedForward(shape.hidden_size, shape.intermediate_size)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], precision: Precision) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, precision)
        return x + self.mlp(self.post_attention_layernorm(x), precision)


class DemoModel(nn.Module):
    """Embedding, blocks, norm and a vocabulary projection tied to the embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        cosine, sine = rotary_table(shape)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        deviation = 0.02
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            # Layers that write to the residual stream start smaller, so depth adds no variance.
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            scale = (2 * self.shape.num_hidden_layers) ** -0.5 if writes else 1.0
            fan_in = 1.0 if "embed" in name else (256 / parameter.shape[1]) ** 0.5
            nn.init.normal_(parameter, std=deviation * 2 * scale * fan_in)

    def hidden(self, tokens: Tensor, precision: Precision = PLAIN) -> Tensor:
        """The normed last hidden states [batch, length, hidden]."""
        length = tokens.shape[1]
        rotary = (self.cosine[:length], self.sine[:length])
        x = self.embed_tokens(tokens)
        for block in self.layers:
            x = block(x, rotary, precision)
        return self.norm(x)

    def logits(self, hidden: Tensor, precision: Precision = PLAIN) -> Tensor:
        """Scores over the vocabulary, for any choice of hidden rows."""
        return product(hidden, self.embed_tokens.weight, precision)
