"""From a model to its ModelShape: how many parameters it has, by what they are for.

A shape is a view of a ``ModelSpec``, whether or not the engine runs the model. Knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models import config as fields
from bandweave.models.attention_spec import Attention, HeadsSpec, LatentSpec, LinearSpec
from bandweave.models.config import ConfigError
from bandweave.models.counted import counted_spec
from bandweave.models.counted_shapes import CountedModel, counted_shape
from bandweave.models.mlp_spec import MlpSpec
from bandweave.models.model_shape import AttentionShape, LayerShape, ModelShape
from bandweave.models.registry import architecture_of, spec_from_config
from bandweave.models.spec import LayerSpec, ModelSpec

_GATED = 3  # matrices of a gated MLP: gate, up, down
_STORED = {
    "fp8": "fp8", "mxfp4": "mxfp4-experts", "mxfp4-pack-quantized": "mxfp4-experts",
}  # fmt: skip
_DTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


def shape_from_config(config: Mapping[str, Any], *, name: str = "model") -> ModelShape:
    """The shape of a parsed config.json; ``ConfigError`` where it cannot be counted.

    What a family that is run says of it is what counts; families that are not are counted by
    ``counted``. A multimodal config that cannot be run counts as its ``text_config``: what a token
    of text reads.
    """
    architectures, runs = fields.texts(config, "architectures"), True
    architecture = architectures[0] if architectures else fields.text(config, "model_type") or ""
    try:
        spec = spec_from_config(config)
    except ConfigError:
        if _is_run(config):
            raise
        runs = False
        text = fields.table(config, "text_config")
        whole = {**config, **text}
        if (counted := counted_shape(whole)) is not None:
            return _shape_of_counts(counted, whole, name=name, architecture=architecture)
        spec = spec_from_config(text) if text and _is_run(text) else counted_spec(whole)
        config = whole
    return shape_of(
        spec,
        name=name,
        architecture=architecture,
        runs=runs,
        stored_format=_stored_format(config),
    )


def _is_run(config: Mapping[str, Any]) -> bool:
    """Whether the engine has its family."""
    try:
        architecture_of(config)
    except ConfigError:
        return False
    return True


def shape_of(
    spec: ModelSpec, *, name: str, architecture: str, runs: bool, stored_format: str
) -> ModelShape:
    """The counts of a model."""
    table = spec.vocab_size * spec.hidden_size
    known = {layer: _layer(layer, spec.hidden_size) for layer in dict.fromkeys(spec.layers)}
    return ModelShape(
        name=name,
        architecture=architecture,
        runs_on_bandweave=runs,
        hidden=spec.hidden_size,
        vocab=spec.vocab_size,
        context_length=spec.context_length,
        layers=tuple(known[layer] for layer in spec.layers),
        embedding_parameters=table,
        head_parameters=table,
        tied=spec.tied_embeddings,
        final_norm_parameters=spec.hidden_size,
        stored_format=stored_format,
        run_length=spec.run_length if spec.run_length < spec.context_length else None,
    )


def _shape_of_counts(
    counted: CountedModel, config: Mapping[str, Any], *, name: str, architecture: str
) -> ModelShape:
    hidden = fields.integer(config, "hidden_size")
    return ModelShape(
        name=name,
        architecture=architecture,
        runs_on_bandweave=False,
        hidden=hidden,
        vocab=fields.integer(config, "vocab_size"),
        context_length=fields.integer(config, "max_position_embeddings"),
        layers=counted.layers,
        embedding_parameters=counted.embedding,
        head_parameters=counted.head,
        tied=False,  # a table that is also the head counts as head alone
        final_norm_parameters=hidden,
        stored_format=_stored_format(config),
    )


def _stored_format(config: Mapping[str, Any]) -> str:
    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    if isinstance(quantization, Mapping) and method == "compressed-tensors":
        method = quantization.get("format")
    if isinstance(method, str) and method in _STORED:
        return _STORED[method]
    dtype = config.get("dtype") or config.get("torch_dtype")
    return _DTYPES.get(dtype, "bf16") if isinstance(dtype, str) else "bf16"


def _layer(layer: LayerSpec, hidden: int) -> LayerShape:
    attention, norms = _attention(layer.attention, hidden), layer.norms * hidden
    mlp = layer.mlp
    width = mlp.intermediate_size
    biases = 2 * width + hidden if mlp.bias else 0
    if isinstance(mlp, MlpSpec):
        return LayerShape(
            attention=attention,
            dense_parameters=_GATED * hidden * width + biases,
            dense_width=width,
            norm_parameters=norms,
        )
    return LayerShape(
        attention=attention,
        shared_parameters=_GATED * hidden * mlp.shared_size + (hidden if mlp.shared_gate else 0),
        router_parameters=mlp.num_experts
        * (hidden + mlp.router.logit_bias + mlp.router.correction),
        expert_parameters=_GATED * hidden * width + biases,
        expert_width=width,
        experts=mlp.num_experts,
        top_k=mlp.top_k,
        norm_parameters=norms,
    )


def _attention(spec: Attention, hidden: int) -> AttentionShape:
    if isinstance(spec, LatentSpec):
        return _latent(spec, hidden)
    return _linear(spec, hidden) if isinstance(spec, LinearSpec) else _heads(spec, hidden)


def _heads(spec: HeadsSpec, hidden: int) -> AttentionShape:
    queries, keys = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    made = queries * (2 if spec.output_gate else 1) + 2 * keys
    parameters = hidden * made + queries * hidden + (made if spec.qkv_bias else 0)
    parameters += hidden if spec.output_bias else 0
    parameters += {"": 0, "head": 2 * spec.head_dim, "all": queries + keys}[spec.qk_norm]
    parameters += spec.num_heads if spec.sinks else 0
    pairs = 4 * queries  # a multiply and an add, for scores and for values
    return AttentionShape(
        kind="heads",
        heads=spec.num_heads,
        kv_heads=spec.num_kv_heads,
        parameters=parameters,
        kv_elements=2 * keys,
        flops_per_pair=pairs,
        expanded_flops_per_pair=pairs,
        window=spec.window,
    )


def _latent(spec: LatentSpec, hidden: int) -> AttentionShape:
    """Absorbed, a head's score is a product of ``kv_rank + rope_dim`` numbers and its output one of
    ``kv_rank`` numbers; expanded, of ``nope_dim + rope_dim`` and of ``v_dim``. With an indexer the
    counts are as if it chose all positions: the most that it can cost."""
    heads, rank, rope = spec.num_heads, spec.kv_rank, spec.rope_dim
    queries = heads * (spec.nope_dim + rope)
    if spec.q_rank is None:
        parameters = hidden * queries
    else:
        parameters = hidden * spec.q_rank + spec.q_rank + spec.q_rank * queries
    parameters += hidden * (rank + rope) + rank + rank * heads * (spec.nope_dim + spec.v_dim)
    parameters += heads * spec.v_dim * hidden
    kept = scored = 0  # of an indexer: a key a position, and the products of its heads with it
    if spec.index is not None:
        assert spec.q_rank is not None, "an indexer reads the queries' latent"
        kept, scored = spec.index.head_dim, 2 * spec.index.num_heads * spec.index.head_dim
        parameters += spec.q_rank * spec.index.num_heads * kept
        parameters += hidden * (kept + spec.index.num_heads) + 2 * kept  # a norm with bias
    return AttentionShape(
        kind="latent",
        heads=heads,
        kv_heads=1,
        parameters=parameters,
        kv_elements=rank + rope + kept,
        flops_per_pair=2 * heads * (2 * rank + rope) + scored,
        expanded_flops_per_pair=2 * heads * (spec.nope_dim + rope + spec.v_dim) + scored,
    )


def _linear(spec: LinearSpec, hidden: int) -> AttentionShape:
    keys, values = spec.key_heads * spec.key_dim, spec.value_heads * spec.value_dim
    parameters = hidden * (
        2 * keys + 2 * values + 2 * spec.value_heads
    )  # q, k, v, gate; beta, decay
    parameters += spec.conv_kernel * (2 * keys + values) + 2 * spec.value_heads
    parameters += spec.value_dim + values * hidden
    return AttentionShape(
        kind="linear",
        heads=spec.value_heads,
        kv_heads=spec.key_heads,
        parameters=parameters,
        kv_elements=0,
        flops_per_pair=0,
        expanded_flops_per_pair=0,
        state_elements=values * spec.key_dim,
    )
