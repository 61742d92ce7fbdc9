"""Reads what llama.cpp's converter makes of tiny models, and compares every value and the spec.

    python -m tests.llama_converter LLAMA_CPP --python .venv-transformers/bin/python

LLAMA_CPP is an unpacked source folder of llama.cpp, which llama-cpp-python's source distribution
has in ``vendor``. The other Python runs the converter. Exit status 1 where anything differs. The
models are those of ``tests.transformers_reference``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import CheckpointError, widen
from bandweave.models.registry import spec_from_config
from bandweave.models.rope import RopeSpec, rope_table
from bandweave.models.spec import ModelSpec
from bandweave.ranges import Range
from tests.helpers.laid_out import laid_out
from tests.helpers.random_model import F32, random_tensors
from tests.transformers_reference.cases import CASES, Case

_CONVERT = Path(__file__).with_name("convert.py")
_SIGMOID = ("deepseek_v3", "glm4_moe_lite", "deepseek_v32", "glm_moe_dsa")
#: What the converter asks of a config and transformers leaves out.
_ADDED: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(_SIGMOID, {"scoring_func": "sigmoid"}),
    "cohere2": {"rotary_pct": 1.0},
}
_NO_WINDOW = {"use_sliding_window": False, "sliding_window": None, "layer_types": None}
#: What files cannot say: models are made without it.
_CHANGED: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("sliding_window", "mixtral"), {"sliding_window": None}),
    **dict.fromkeys(("qwen2", "qwen3_window"), _NO_WINDOW),
    "qwen2_moe": {**_NO_WINDOW, "mlp_only_layers": []},
    "qwen3_moe": {"decoder_sparse_step": 1},
    "smollm3": {**_NO_WINDOW, "no_rope_layer_interval": 4, "no_rope_layers": None},
    "gemma2": {"query_pre_attn_scalar": 20},
    "gemma3": {
        "query_pre_attn_scalar": 24,
        "num_hidden_layers": 6,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
    },
    "cohere2": {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
}


def _write(case: Case, folder: Path) -> tuple[ModelSpec, dict[str, F32]]:
    config = {**case.config(), **_CHANGED.get(case.name, {})}
    spec = spec_from_config(config)
    tensors = random_tensors(spec, case.seed)
    folder.mkdir()
    added = {"torch_dtype": "float32", **_ADDED.get(case.name, {})}
    (folder / "config.json").write_text(json.dumps({**config, **added}))
    vocabulary = {str(number): number for number in range(spec.vocab_size)}
    tokens = {"model": {"vocab": vocabulary}, "added_tokens": []}  # Gemma's are counted
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    save_file(laid_out(spec, tensors), folder / "model.safetensors")
    return spec, tensors


def _differences(path: Path, spec: ModelSpec, tensors: Mapping[str, F32]) -> Iterator[str]:
    with Folder.open(path) as folder:
        added = np.float32(spec.norm_offset - folder.spec.norm_offset)
        for name in folder.names():
            shape, values = folder.shape(name), tensors[name]
            if name.endswith("norm"):
                values = values + added
            read = widen(folder.read(name, Range(start=0, stop=shape[0])))
            if shape != values.shape or not np.array_equal(read.reshape(shape), values):
                yield f"tensor {name}"
        own, expected = (
            folder.spec,
            dataclasses.replace(
                spec, norm_offset=folder.spec.norm_offset, further=folder.spec.further
            ),
        )
    for field in dataclasses.fields(ModelSpec):
        one, other = getattr(own, field.name), getattr(expected, field.name)
        if field.name != "layers" and one != other:
            yield f"{field.name} is {one}, not {other}"
    for number, (one, other) in enumerate(zip(own.layers, expected.layers, strict=False)):
        yield from (f"layer {number}: {text}" for text in _parts(one, other))


def _parts(one: Any, other: Any) -> Iterator[str]:
    """The fields in which two specs of a part differ, ropes by what they do."""
    if isinstance(one, RopeSpec) and isinstance(other, RopeSpec):
        own, theirs = (
            [*rope_table(rope).frequencies, rope_table(rope).factor, rope.softmax_factor]
            for rope in (one, other)
        )
        if len(own) != len(theirs) or not np.allclose(own, theirs, rtol=1e-6, atol=0):
            yield f"{one}, not {other}"
    elif type(one) is type(other) and dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            pair = getattr(one, field.name), getattr(other, field.name)
            yield from _parts(*pair) if pair[0] != pair[1] else ()
    elif one != other:
        yield f"{one}, not {other}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("llama_cpp", type=Path)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--case", action="append", help="default: all")
    options = parser.parse_args()
    chosen = [case for case in CASES if options.case is None or case.name in options.case]
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folders = {case.name: Path(name) / case.name for case in chosen}
        made = {case.name: _write(case, folders[case.name]) for case in chosen}
        command = [options.python, _CONVERT, options.llama_cpp, *folders.values()]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        for line in run.stdout.splitlines():
            case, _, outcome = line.partition(" ")
            if outcome != "converts":
                print(line)
                continue
            try:
                found = list(_differences(folders[case].with_suffix(".gguf"), *made[case]))
            except CheckpointError as error:
                found = [str(error)]
            print(f"{case}: {'; '.join(found[:4]) or 'equal'}")
            failed = failed or bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
