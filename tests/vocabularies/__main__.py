"""Compares tokenizers with llama.cpp's, by llama-cpp-python:

`python -m tests.vocabularies check FOLDER [NAME ...]` all vocabularies, or those named, and the
expected ids that a source folder of llama.cpp has in `models`; exit status 1 where any differs.
`python -m tests.vocabularies store` the ids of the small vocabularies, for `make test`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bandweave.text.files import TextError
from bandweave.text.gguf_codec import GgufCodec
from bandweave.text.gguf_vocabulary import GgufVocabulary
from bandweave.text.pre_tokenizers import PRE_TOKENIZERS
from tests.vocabularies import small, stored
from tests.vocabularies.files import read_metadata, write_metadata
from tests.vocabularies.llama import Llama
from tests.vocabularies.texts import TEXTS

_PARTED = "\n__ggml_vocab_test__\n"  # what stands between the texts of llama.cpp's tests
_SHOWN = 10  # tokens that read differently
_UNSPELLED = b"[UNK_BYTE_"  # llama.cpp's mark where a token is not spelled in bytes' characters
_COLUMNS = "{:28} {:8} {:15} {:>8} {:>9} {:>9} {:>9} {:>8}"


def check(folder: Path, names: Sequence[str] = ()) -> int:
    """Prints a table of all vocabularies or those named; the number of differences."""
    print(_COLUMNS.format("vocabulary", "kind", "pre", "tokens", "own", "special", "plain", "load"))
    files = {path.stem.removeprefix("ggml-vocab-"): path
             for path in sorted(folder.glob("models/ggml-vocab-*.gguf"))}  # fmt: skip
    return sum(_check_file(name, files[name]) for name in names or files)


def _check_file(name: str, path: Path) -> int:
    metadata = read_metadata(path)
    start = time.perf_counter()
    try:
        codec = GgufCodec(GgufVocabulary.read(metadata, vocab_size=None, where=name))
    except TextError as error:
        print(f"{name:28} refused: {error}")
        return 0
    seconds = time.perf_counter() - start
    llama = Llama(path)
    own = list(_expected(path))
    texts = [*(text for text, _ in own), *TEXTS]
    different = {
        "own": [text for text, ids in own if _encode(codec, text, special=False) != ids],
        "special": [text for text in texts if _differs(codec, llama, text, special=True)],
        "plain": [text for text in texts if _differs(codec, llama, text, special=False)],
    }
    counts = {"own": len(own), "special": len(texts), "plain": len(texts)}
    print(_COLUMNS.format(
        name, metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre", "-"), codec.size,
        *(f"{counts[kind] - len(found)}/{counts[kind]}" for kind, found in different.items()),
        f"{seconds:.2f} s",
    ))  # fmt: skip
    for kind, found in different.items():
        for text in found:
            print(f"  {kind} differs: {text!r}")
    ends = sorted({*llama.ends()} ^ {*codec.roles.ends})
    if ends:
        print(f"  only one of the two ends an answer with {[codec.id_to_token(t) for t in ends]}")
    pairs = [(token, codec.token_bytes(token), llama.token_bytes(token))
             for token in range(codec.size)]  # fmt: skip
    wrong = [pair for pair in pairs if pair[1] != pair[2] and _UNSPELLED not in pair[2]]
    for token, ours, theirs in wrong[:_SHOWN]:
        print(f"  {codec.id_to_token(token)!r} reads {ours!r}, there {theirs!r}")
    llama.close()
    return sum(map(len, different.values())) + len(wrong)


def _expected(path: Path) -> Iterator[tuple[str, list[int]]]:
    """The texts of llama.cpp's own test of a vocabulary, and their ids."""
    texts = path.with_name(f"{path.name}.inp")
    if not texts.exists():
        return
    lines = path.with_name(f"{path.name}.out").read_text().split("\n")
    for text, line in zip(texts.read_bytes().decode().split(_PARTED), lines, strict=False):
        yield text, [int(number) for number in line.split()]


def _encode(codec: GgufCodec, text: str, *, special: bool) -> list[int]:
    return codec.encode(text, special_tokens=special, parse_special=special)


def _differs(codec: GgufCodec, llama: Llama, text: str, *, special: bool) -> bool:
    theirs = llama.encode(text, special_tokens=special, parse_special=special)
    return _encode(codec, text, special=special) != theirs


def store() -> None:
    """Writes what ``tests/test_gguf_tokens.py`` compares with."""
    merges = small.train_merges(stored.MERGES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.gguf"
        groups: list[stored.Groups] = [{} for _ in TEXTS]
        starts: list[str] = []
        for pre in PRE_TOKENIZERS:
            with _llama(path, small.of_bytes(merges, pre)) as llama:
                if llama.encode("", special_tokens=True, parse_special=True):
                    starts.append(pre)
                for text, of_text in zip(TEXTS, groups, strict=True):
                    of_text.setdefault(_both(llama, text, special_tokens=False), []).append(pre)
        others = [(small.of_characters(), TEXTS), *stored.pieces_cases()]
        ids: list[list[stored.Both]] = []
        for metadata, texts in others:
            with _llama(path, metadata) as llama:
                ids.append([_both(llama, text, special_tokens=True) for text in texts])
    stored.write(merges, starts, groups, ids)


@contextlib.contextmanager
def _llama(path: Path, metadata: dict[str, Any]) -> Iterator[Llama]:
    write_metadata(path, metadata)
    llama = Llama(path)
    yield llama
    llama.close()


def _both(llama: Llama, text: str, *, special_tokens: bool) -> stored.Both:
    """A text's ids with special tokens, and without any."""
    special = llama.encode(text, special_tokens=special_tokens, parse_special=True)
    plain = llama.encode(text, special_tokens=False, parse_special=False)
    return tuple(special), tuple(plain)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checks = commands.add_parser("check")
    checks.add_argument("folder", type=Path)
    checks.add_argument("names", nargs="*", metavar="NAME")
    commands.add_parser("store")
    arguments = parser.parse_args()
    if arguments.command == "check":
        return 1 if check(arguments.folder, arguments.names) else 0
    store()
    return 0


if __name__ == "__main__":
    sys.exit(main())
