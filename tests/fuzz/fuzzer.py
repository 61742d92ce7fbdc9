"""The C++ fuzzers (native/fuzz): how they are built and run, and the dumps that they begin with."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bandweave import _native
from bandweave.executors.dump import DumpOptions, write_dump
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.weights.loading import load_weights
from tests.helpers.random_model import ODD_SPECS, random_source
from tests.helpers.runner_builds import build_native

KINDS = ("dumps", "programs", "transcripts", "records", "teams")

_BUILDS = Path(__file__).resolve().parents[2] / "build" / "fuzz"
# What compiles in half a minute, for each run of the tests: one variant of the kernels, under the
# address sanitizer alone. The long run takes both, and all variants that this processor runs.
_QUICK = (
    "-DBANDWEAVE_VARIANTS=portable",
    "-DBANDWEAVE_KERNEL_SANITIZERS=address",
    "-DBANDWEAVE_FUZZ_OPTIMISATION=-O0",
)
_SEEDS = {
    "q4": "grouped_experts", "q8": "latent_queries", "bf16": "biased_experts",
    "f32": "latent_gated_expert", "mxfp4": "biases", "nf4": "qk_norm_window",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Report:
    """How many inputs ended in which way, in a few words each."""

    outcomes: Mapping[str, int]
    seconds: float
    peak_rss_bytes: int

    @property
    def inputs(self) -> int:
        return sum(self.outcomes.values())

    def count(self, words: str) -> int:
        """Inputs whose outcome has these words in it."""
        return sum(count for what, count in self.outcomes.items() if words in what)


def build_fuzzer(*, quick: bool) -> Path:
    """The fuzzer's file, built anew where sources have changed."""
    folder = _BUILDS / ("quick" if quick else "full")
    full = ("-DBANDWEAVE_VARIANTS=" + ";".join(_native.isa_variants()),)
    build_native(folder, "-DBANDWEAVE_FUZZ=ON", *(_QUICK if quick else full))
    return folder / "native" / "fuzz" / "bandweave-fuzz"


def run_fuzzer(
    fuzzer: Path, kind: str, *, inputs: int, seed: int, first: int = 0, dumps: Sequence[Path] = ()
) -> Report:
    """Runs inputs ``first`` up to ``first + inputs``; ``AssertionError`` with the number of one
    that must not end as it did."""
    numbers = ("--inputs", str(inputs), "--seed", str(seed), "--first", str(first))
    names = [str(path) for path in dumps] if kind == "dumps" else []
    command = [str(fuzzer), kind, *numbers, *names]
    # A program may ask for more memory than there is: it is refused, not an error of memory.
    options = {**os.environ, "ASAN_OPTIONS": "allocator_may_return_null=1"}
    done = subprocess.run(command, capture_output=True, text=True, env=options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-8000:]}"
    found = json.loads(done.stdout)
    return Report(
        outcomes=found["outcomes"],
        seconds=found["seconds"],
        peak_rss_bytes=found["peak_rss_bytes"],
    )


def write_seeds(folder: Path) -> list[Path]:
    """Small models of odd shapes in most weight formats: mixtures of experts, latent attention, and
    dense ones."""
    return [
        _write_seed(folder / weight_format, name, weight_format)
        for weight_format, name in _SEEDS.items()
    ]


def _write_seed(path: Path, name: str, weight_format: str) -> Path:
    spec = ODD_SPECS[name]
    source = random_source(spec, 3, bf16=weight_format == "bf16")
    program = lower(build_graph(spec), make_split(spec, (1,), stages=1), 0)
    options = DumpOptions(
        weight_format=weight_format,
        kv_format="f16" if weight_format == "q4" else "f32",
        context=100,
        max_rows=16,
        end_tokens=(),
    )
    write_dump(path, program, load_weights(program, source, weight_format), source, options)
    return path
