"""GGUF files that are fuzzed: models, models in parts, and tokenizers.

What reads a file goes on as a command would.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.gguf import GgufFile
from bandweave.checkpoints.model_files import shape_from_path
from bandweave.ranges import Range
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer
from tests.fuzz.mutate import damaged_bytes, damaged_text
from tests.fuzz.sentences import check_sentence
from tests.helpers.gguf_bytes import field, gguf, small_llama
from tests.vocabularies import small

Chance = random.Random

_ARCHITECTURES = (
    "qwen2", "qwen2moe", "qwen3", "qwen3moe", "deepseek2", "gpt-oss", "gemma2", "gemma3", "glm4",
    "glm4moe", "phi3", "granite", "minimax-m2", "cohere2", "smollm3", "ernie4_5-moe", "olmo2",
)  # fmt: skip
_KEYS = (
    "attention.kv_lora_rank", "attention.key_length", "attention.key_length_mla",
    "attention.value_length", "attention.value_length_mla", "attention.q_lora_rank",
    "nextn_predict_layers", "attention.sliding_window", "attention.sliding_window_pattern",
    "expert_count", "expert_used_count", "expert_feed_forward_length", "expert_shared_count",
    "expert_gating_func", "expert_group_count", "expert_group_used_count", "expert_weights_scale",
    "expert_weights_norm", "leading_dense_block_count", "rope.dimension_count", "rope.freq_base",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
    "rope.scaling.attn_factor", "attention.layer_norm_epsilon", "logit_scale", "embedding_scale",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    0, 1, 2, 3, 64, 2**31, 2**32 - 1, -1, 2**63 - 1, 1.5, 0.0, -1.0, 1e30, float("nan"),
    float("inf"), "x", "", "yarn", "linear", "longrope", True, False, [], ["a"], [1, 2], [64] * 2,
    [True, False], [0.5] * 300, "llama", "\udcff",
)  # fmt: skip
_NAMES = (
    "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight", "output.weight",
    "blk.0.attn_qkv.weight", "blk.0.attn_q.bias", "blk.0.ffn_gate_inp.weight", "blk.1.enorm",
    "blk.0.ffn_gate.0.weight", "x" * 300, "\udcff", "",
)  # fmt: skip
_SHAPES = ((), (0,), (1,), (32,), (256,), (64, 0), (40, 256), (1,) * 4, (1,) * 5, (2**40, 2**40))


def _content(chance: Chance) -> bytes:
    """A model with other fields, other tensors and other bytes here and there."""
    fields, tensors = small_llama(layers=1, experts=chance.choice((0, 0, 2)), vocabulary=40)
    if chance.random() < 0.05:
        fields["tokenizer.ggml.tokens"] = ["t"] * 5000  # which are passed over
    if chance.random() < 0.5:
        architecture = chance.choice(_ARCHITECTURES)
        fields = {key.replace("llama.", f"{architecture}."): value for key, value in fields.items()}
        fields["general.architecture"] = architecture
        for key in _KEYS:
            if chance.random() < 0.15:
                fields[f"{architecture}.{key}"] = chance.choice(_VALUES)
    for key in chance.sample(list(fields), chance.choice((0, 0, 1, 1, 3))):
        fields[key] = chance.choice(_VALUES)
        if chance.random() < 0.2:
            del fields[key]
    if chance.random() < 0.1:
        fields["general.alignment"] = chance.choice((0, 1, 2, 3, 64, 4096, 2**31, -1, "x", 1.5))
    for name in chance.sample([*tensors, *_NAMES], chance.choice((0, 0, 1, 2))):
        kind, shape = tensors.pop(name, (0, (256,)))
        if chance.random() < 0.3:
            shape = chance.choice(_SHAPES)
        if chance.random() < 0.8:
            tensors[name] = (chance.choice((kind, 0, 2, 14)), shape)
    content = gguf(fields, tensors, most=1 << 24)
    if chance.random() < 0.5:
        header = content[: 500 + chance.randrange(3000)]
        content = damaged_bytes(header, chance) + content[len(header) :]
    return content


def make_model(folder: Path, chance: Chance) -> None:
    (folder / "m.gguf").write_bytes(_content(chance))


def read_model(folder: Path) -> None:
    _each(folder / "m.gguf", shape_from_path, _tokenizer_of, _open)


def make_parts(folder: Path, chance: Chance) -> None:
    """Two sound files, one of which is damaged, missing or another one."""
    fields, tensors = small_llama(layers=1, vocabulary=40)
    names = list(tensors)
    cut = chance.randrange(len(names) + 1)
    for path in folder.glob("*.gguf"):
        path.unlink()
    for number, own in enumerate((names[:cut], names[cut:])):
        said = {"split.no": number, "split.count": 2, "split.tensors.count": len(tensors)}
        for key in said:
            if chance.random() < 0.1:
                said[key] = chance.choice(_VALUES)
        given = {**fields, **said} if number == 0 else said
        if chance.random() < 0.1:
            own = [*own, chance.choice(names)]
        content = gguf(given, {name: tensors[name] for name in own})
        if chance.random() < 0.3:
            content = damaged_bytes(content[:3000], chance) + content[3000:]
        name = chance.choice((1, 2)) if chance.random() < 0.1 else number + 1
        (folder / f"m-{name:05}-of-00002.gguf").write_bytes(content)


def read_parts(folder: Path) -> None:
    for path in sorted(folder.glob("*.gguf")):
        _each(path, shape_from_path, _open)


def _each(path: Path, *reads: Callable[[Path], object]) -> None:
    """All of them; the last one's error is the input's."""
    for read in reads[:-1]:
        try:
            read(path)
        except ValueError as error:
            check_sentence(error)
    reads[-1](path)


def _open(path: Path) -> None:
    with Folder.open(path) as opened:
        opened.fingerprint()
        for name in opened.names():
            opened.read(name, Range(start=0, stop=min(opened.shape(name)[0], 64)))


def _tokenizer_of(path: Path) -> None:
    file = GgufFile.open(path)
    try:
        Tokenizer.from_gguf(file.whole_metadata(), where=str(path))
    finally:
        file.close()


# --- tokenizers ---


@functools.cache
def _sound(kind: int) -> dict[str, Any]:
    if kind == 0:
        return small.of_bytes(["t h", "th e", "i n"], "llama-bpe")
    return small.of_characters() if kind == 1 else small.of_pieces(seed=kind, kinds_of_scores=4)


def make_tokenizer(folder: Path, chance: Chance) -> None:
    fields = dict(_sound(chance.randrange(3)))
    fields["tokenizer.chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    for key in chance.sample(list(fields), chance.choice((0, 1, 1, 2))):
        value = fields[key]
        if isinstance(value, list) and chance.random() < 0.7:
            value = list(value)
            for _ in range(chance.choice((1, 1, 8, 100))):
                at = chance.randrange(len(value) + 1)
                item = value[at % len(value)]
                damaged = damaged_text(item, chance) if isinstance(item, str) else item
                value[at : at + 1] = [chance.choice((damaged, item, "", "\udcff", 2**31, 7, -1.0))]
        elif isinstance(value, str) and chance.random() < 0.5:
            value = damaged_text(value, chance)
        else:
            value = chance.choice(_VALUES)
        fields[key] = value
        if chance.random() < 0.1:
            del fields[key]
    for key in ("add_bos_token", "add_eos_token", "add_space_prefix", "eot_token_id",
                "padding_token_id", "remove_extra_whitespaces", "pre"):  # fmt: skip
        if chance.random() < 0.1:
            fields[f"tokenizer.ggml.{key}"] = chance.choice(_VALUES)
    header = b"".join(field(key, value) for key, value in fields.items())
    content = gguf({}, {}, written=(len(fields), header))
    if chance.random() < 0.2:
        content = damaged_bytes(content, chance)
    (folder / "m.gguf").write_bytes(content)


def read_tokenizer(folder: Path) -> None:
    file = GgufFile.open(folder / "m.gguf")
    try:
        metadata = file.whole_metadata()
    finally:
        file.close()
    tokenizer = Tokenizer.from_gguf(metadata, vocab_size=700, where="m.gguf")
    ids = tokenizer.encode("Hi the <|user|> é</s>世 <tool>")
    tokenizer.decode(ids)
    stream = tokenizer.stream(["<|end|>", "x"], prompt=ids[:4])
    text = "".join(stream.push(token) for token in [*ids, *range(0, 700, 7), 10**6])
    (text + stream.flush()).encode()
    if ChatTemplate.is_in_gguf(metadata):
        template = ChatTemplate.from_gguf(metadata, tokens=tokenizer.named_tokens, where="m.gguf")
        template.render([{"role": "user", "content": "Hi <b> é"}])
