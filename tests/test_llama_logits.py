"""Logits of GGUF files beside those of llama.cpp, as stored: alike within what rounding explains.

Weights are the same bits on both sides. Activations are not: llama.cpp rounds them to int8 in
groups of 256 (K-quants, IQ4_XS) or 32, bandweave in groups of 32 everywhere. A value rounded to
int8 is off by at most 0.5 / 127 of its group's largest, 0.29 / 127 in the mean square; with the
largest of 256 normal values at 2.8 deviations that is 0.6 % of a value, and a product of many terms
is off by as much of its own size. Seven products in each of two layers and the head add up, as
independent errors do, to 0.6 % times the root of 15: 2.5 % of the logits' deviation (1.2 to 2.7 %
are measured). The greatest of 6,000 lies at four to five times that, and the largest logit at four
to six deviations: 3 % of it (1.2 to 3.0 % are measured).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bandweave.checkpoints.folder import Folder
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import F32
from tests.helpers.reference_nodes import Book
from tests.llama_reference.cases import (
    HYBRID_KINDS,
    KINDS,
    PROMPT,
    write_case,
    write_hybrid_case,
)

BOUNDS = {"F32": 1e-5, "F16": 1e-3, "BF16": 8e-3}  # llama.cpp rounds activations to these, too
QUANTISED, QUANTISED_RMS = 0.04, 0.03
HYBRID_BOUNDS = {"F32": 1e-5, "F16": 3e-3}  # of twice as many layers, whose states add up
FOLDER = Path(__file__).parent / "llama_reference"
STORED = np.load(FOLDER / "logits.npz")
HYBRIDS = np.load(FOLDER / "hybrid_logits.npz")


@pytest.mark.parametrize(("name", "kind"), HYBRID_KINDS)
def test_logits_of_hybrids_are_those_of_llama_cpp(name: str, kind: str, tmp_path: Path) -> None:
    theirs = HYBRIDS[f"{name} {kind}"]
    ours = _logits(write_hybrid_case(tmp_path / "m.gguf", name, kind))
    assert np.abs(ours - theirs).max() <= HYBRID_BOUNDS.get(kind, QUANTISED) * np.abs(theirs).max()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_llama_cpp(kind: str, tmp_path: Path) -> None:
    theirs = STORED[kind]
    largest = np.abs(theirs).max()
    ours = _logits(write_case(tmp_path / "m.gguf", kind))
    bound = BOUNDS.get(kind, QUANTISED) * largest
    assert np.abs(ours - theirs).max() <= bound
    if kind not in BOUNDS:
        assert np.sqrt(np.square(ours - theirs).mean()) <= QUANTISED_RMS * theirs.std()
    # Where llama.cpp's best leads by more than rounding can take, it is the best here, too.
    first, second = np.sort(theirs, axis=1)[:, -1], np.sort(theirs, axis=1)[:, -2]
    clear = first - second > 2 * bound
    assert clear.any() or kind == "Q2_K"  # whose logits lie close together
    assert (ours.argmax(1) == theirs.argmax(1))[clear].all()


def _logits(path: Path) -> F32:
    """Of the prompt, with weights as they are stored."""
    book = Book(num_sequences=1, pages_each=1)
    with (
        Folder.open(path) as model,
        NativeNodes(model.spec, model, weight_format="stored", kv_format="f32",
                    num_pages=book.num_pages) as nodes,
    ):  # fmt: skip
        return nodes.run(book.step([(0, PROMPT)]))
