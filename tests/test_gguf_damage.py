"""GGUF files that are damaged, cut, or not what they seem: one sentence each, and exit status 2."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.gguf import GgufFile
from bandweave.checkpoints.source import CheckpointError
from tests.fuzz.sentences import sentence_fault
from tests.helpers.command import bandweave
from tests.helpers.gguf_bytes import F32, Q4_0, field, gguf, small_llama, text

Fields = dict[str, Any]
Tensors = dict[str, tuple[int, tuple[int, ...]]]
U32 = struct.Struct("<I").pack
U64 = struct.Struct("<Q").pack


def refused(path: Path, content: bytes, part: str) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        Folder.open(path)
    sentence = str(caught.value)
    assert part in sentence and path.name in sentence
    assert sentence_fault(caught.value) is None
    assert "config.json" not in sentence


def header(*, version: int = 3, tensors: int = 0, fields: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + rest + bytes(64)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "does not start with GGUF"),
        (b"GGUF", "does not start with GGUF"),
        (b"ggml" + header()[4:], "does not start with GGUF"),
        (header(version=1), "is GGUF version 1; versions 2 and 3 are read"),
        (header(version=4), "is GGUF version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64), "other byte order"),
        (header(tensors=1 << 63), "it is damaged"),
        (header(fields=1 << 40), "it is damaged"),
        (header(fields=1, rest=U64(1 << 62) + b"a"), "a text of 4611686018427387904 bytes"),
        (header(fields=1, rest=U64(5000) + b"a" * 5000), "a text of 5000 bytes"),
        (header(fields=2, rest=field("a", 1) * 2), "the field 'a' stands in it twice"),
        (header(fields=1, rest=text("a") + U32(99)), "the unknown type 99"),
        (header(fields=1, rest=text("a") + U32(9) + U32(9) + U64(1)), "an array of type 9"),
        (header(fields=1, rest=text("a") + U32(9) + U32(4) + U64(1 << 60)), "damaged or cut"),
        (header(fields=1, rest=text("a") + U32(8) + U64(300) + b"a"), "is cut short"),
        (header(tensors=1, rest=text("t") + U32(0)), "has 0 dimensions"),
        (header(tensors=1, rest=text("t") + U32(5)), "has 5 dimensions"),
        (header(tensors=1, rest=text("t") + U32(1) + U64(32) + U32(200) + U64(0)),
         "tensor 't' has the type 200, which is not known; download another version"),
        (header(tensors=1, rest=text("t") + U32(1) + U64(31) + U32(2) + U64(0)), "cannot be Q4_0"),
        (header(tensors=1, rest=text("t") + U32(2) + U64(1 << 40) * 2 + U32(0) + U64(0)),
         "cannot be F32"),
        (header(tensors=1, rest=text("t") + U32(1) + U64(32) + U32(0) + U64(1 << 63)),
         "cannot be F32"),
        (header(), "general.architecture is None"),
    ],
)  # fmt: skip
def test_headers(tmp_path: Path, content: bytes, part: str) -> None:
    refused(tmp_path / "m.gguf", content, part)


def _fields(**changes: Any) -> Callable[[Fields, Tensors], None]:
    def change(fields: Fields, tensors: Tensors) -> None:
        for key, value in changes.items():
            fields[key.replace("__", ".")] = value

    return change


def _without(key: str) -> Callable[[Fields, Tensors], None]:
    def change(fields: Fields, tensors: Tensors) -> None:
        (fields if key in fields else tensors).pop(key)  # type: ignore[attr-defined]

    return change


def _tensor(name: str, kind: int, *shape: int) -> Callable[[Fields, Tensors], None]:
    def change(fields: Fields, tensors: Tensors) -> None:
        tensors[name] = (kind, shape)

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_fields(general__architecture="mamba"), "architecture 'mamba' is not supported"),
        (_fields(general__architecture=3), "general.architecture is 3"),
        (_fields(general__alignment=3), "an alignment of 3 makes no sense"),
        (_fields(general__alignment="x"), "an alignment of 'x' makes no sense"),
        (_fields(llama__block_count=0), "it has 0 layers"),
        (_fields(llama__block_count=2**31), "llama.block_count is 2147483648; it must be a size"),
        (_fields(llama__block_count=3), "lacks 9 of the 30 tensors that its metadata asks for"),
        (_fields(llama__block_count="2"), "llama.block_count is '2'; it must be a size"),
        (_fields(llama__embedding_length=1.5), "llama.embedding_length is 1.5; it must be a size"),
        (_fields(llama__embedding_length=128), "but metadata asks for"),
        (_fields(llama__attention__head_count=0), "the number of heads is 0"),
        (_fields(llama__attention__head_count=[4, 8]), "the same in every layer"),
        (_fields(llama__context_length=True), "it must be a size"),
        (_fields(llama__attention__layer_norm_rms_epsilon="x"), "must be a number"),
        (_fields(llama__attention__layer_norm_rms_epsilon=float("nan")), "must be finite"),
        (_fields(llama__rope__scaling__type="su"), "rope is scaled as 'su'"),
        (_fields(llama__rope__scaling__type=7), "it must be a text"),
        (_without("llama.context_length"), "llama.context_length is missing"),
        (_without("token_embd.weight"), "there is no tensor token_embd.weight"),
        (_without("blk.1.ffn_down.weight"), "the first is 'blk.1.ffn_down.weight'; download"),
        (_tensor("blk.0.attn_norm.weight", Q4_0, 256), "is a vector that is stored as Q4_0"),
        (_tensor("blk.0.attn_norm.weight", F32, 255), "has shape [255], but metadata asks for"),
        (_tensor("blk.0.attn_q.weight", Q4_0, 256), "has shape [256], but metadata asks for"),
        (_tensor("blk.0.ffn_up.weight", Q4_0, 256, 512), "has shape [256, 512], but metadata"),
        (_tensor("rope_freqs.weight", Q4_0, 32), "'rope_freqs.weight' must hold at most"),
        (_tensor("rope_freqs.weight", F32, 1 << 17), "'rope_freqs.weight' must hold at most"),
        (
            _tensor("rope_freqs.weight", F32, 32),
            "short_factor is 0.0; it must be a positive number",
        ),
    ],
)
def test_metadata_and_tensors(
    tmp_path: Path, change: Callable[[Fields, Tensors], None], part: str
) -> None:
    fields, tensors = small_llama()
    change(fields, tensors)
    refused(tmp_path / "m.gguf", gguf(fields, tensors), part)


def test_tensors_that_overlap_or_come_twice(tmp_path: Path) -> None:
    content = gguf(*small_llama())
    at = content.index(text("blk.0.attn_q.weight")) + len(text("blk.0.attn_q.weight")) + 4 + 16 + 4
    refused(tmp_path / "m.gguf", content[:at] + bytes(8) + content[at + 8 :], "inside of")
    twice = content.replace(text("blk.1.attn_q.weight"), text("blk.0.attn_q.weight"))
    refused(tmp_path / "m.gguf", twice, "'blk.0.attn_q.weight' stands in it twice")


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    fields, tensors = small_llama()
    tensors["blk.0.attn_q\udcff"] = tensors.pop("blk.0.attn_q.weight")
    refused(tmp_path / "m.gguf", gguf(fields, tensors), "the first is 'blk.0.attn_q.weight'")
    tensors["blk.0.attn_q\udcff"] = (F32, (1 << 40, 1 << 30))
    refused(tmp_path / "m.gguf", gguf(fields, tensors, most=1 << 20), "blk.0.attn_q\\udcff")
    fields["general.architecture"] = "\udcff"
    refused(tmp_path / "m.gguf", gguf(fields, {}), "architecture '\\udcff' is not supported")


def test_cut_anywhere(tmp_path: Path) -> None:
    fields, tensors = small_llama(layers=1)
    fields["tokenizer.ggml.tokens"] = ["a"] * 20
    content = gguf(fields, tensors)
    for stop in [*range(0, 2000, 37), len(content) // 2, len(content) - 33]:
        refused(tmp_path / "m.gguf", content[:stop], "")


def test_a_header_that_is_longer_than_any(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.write(header(fields=1, rest=text("a") + U32(9) + U32(10) + U64(1_900_000))[:-64])
        file.truncate(1 << 30)
    GgufFile.open(path).close()
    with path.open("r+b") as file:
        file.write(header(fields=9, rest=text("a") + U32(9) + U32(10) + U64(30_000_000))[:-64])
    with pytest.raises(CheckpointError, match="arrays of 30000000 items; it is damaged"):
        GgufFile.open(path)


def test_numbers_and_texts_across_the_pieces_that_are_read(tmp_path: Path) -> None:
    """Headers are read a megabyte at a time, which may end anywhere."""
    path, size = tmp_path / "m.gguf", 1 << 20
    for ahead in range(1, 13):
        texts = ["a" * (size - 60 - ahead), "é" * 3]
        more = {"b": 7, "c": "d", "e": [1.5, 2.5]}
        path.write_bytes(gguf({"a": texts, **more, "f": ["x"] * 5000}, {"t": (F32, (32,))}))
        file = GgufFile.open(path)
        assert file.whole_metadata() == {"a": texts, **more, "f": ["x"] * 5000}
        assert list(file.tensors) == ["t"]
        file.close()


# --- parts ---


def parts(folder: Path, *said: Fields, count: int = 3) -> list[Path]:
    """A model in so many parts, each of which says more."""
    fields, tensors = small_llama(layers=1)
    names, paths = list(tensors), []
    for number in range(count):
        own = {name: tensors[name] for name in names[number::count]}
        split = {"split.no": number, "split.count": count, "split.tensors.count": len(names)}
        more = said[number] if number < len(said) else {}
        given = {**(fields if number == 0 else {}), **split, **more}
        paths.append(folder / f"m-{number + 1:05}-of-{count:05}.gguf")
        paths[-1].write_bytes(gguf(given, own))
    return paths


def test_parts_are_one_model_whichever_is_named(tmp_path: Path) -> None:
    paths = parts(tmp_path)
    found = []
    for path in paths:
        with Folder.open(path) as folder:
            assert set(folder.files) == {one.name for one in paths}
            found.append(folder.fingerprint())
    assert found[0] == found[1] == found[2]


def test_parts_that_are_missing_renamed_or_others(tmp_path: Path) -> None:
    def sentence(path: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            Folder.open(path)
        assert sentence_fault(caught.value) is None
        return str(caught.value)

    first, second, third = parts(tmp_path)
    second.unlink()
    assert "m-00002-of-00003.gguf is missing, the first of 1" in sentence(first)
    second.write_bytes(third.read_bytes())
    assert "split.no is 2, but by its name it is part 2 of 3" in sentence(first)
    first, second, third = parts(tmp_path)
    one, other = second.read_bytes(), third.read_bytes()
    second.write_bytes(other)
    third.write_bytes(one)
    assert "give all parts the names that they came with" in sentence(third)
    (first, *_) = parts(tmp_path, {"split.tensors.count": 99})
    assert "its parts hold 12 tensors, but there must be 99" in sentence(first)
    (first, *_) = parts(tmp_path, {}, {"split.count": 4})
    assert "split.count is 4" in sentence(first)
    (first, *_) = parts(tmp_path, {"split.count": "3"})
    assert "split.count is '3'" in sentence(first)
    first, second, _ = parts(tmp_path, {"split.tensors.count": 20})
    fields, tensors = small_llama(layers=1)
    second.write_bytes(gguf({"split.no": 1}, tensors))
    assert "remove the file that does not belong" in sentence(first)
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(parts(tmp_path)[0].read_bytes())
    assert "split.count is 3, but by its name it is part 1 of 1" in sentence(alone)
    beyond = tmp_path / "m-00004-of-00003.gguf"
    beyond.write_bytes(first.read_bytes())
    assert "cannot be part 4 of 3" in sentence(beyond)


def test_a_command_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(*small_llama())[:-64])
    result = bandweave("run", path, "--prompt", "Hi")
    assert result.status == 2 and result.out == ""
    assert "is cut short" in result.err and len(result.err.splitlines()) == 1
