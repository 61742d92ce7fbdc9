"""Other processors give the same bits: kernels and whole generations on emulated Arm and older x86
processors, without Python, from dumped programs."""

from __future__ import annotations

import json
import os
import random
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bandweave import NUMERICS_VERSION, _native
from bandweave.checkpoints.source import widen
from bandweave.executors.dump import DumpOptions, write_dump
from bandweave.executors.executor import ExecutorOptions
from bandweave.executors.native import NativeExecutor
from bandweave.generation.generator import Generator
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.weights.loading import load_weights
from tests.helpers.command import start_command
from tests.helpers.random_model import ODD_SPECS, random_tensors
from tests.helpers.runner_builds import build_runner, run_runner
from tests.helpers.tiny_numbers import tiny_source

pytestmark = pytest.mark.timeout(600)  # the first test of a build compiles it

late = partial(pytest.param, marks=pytest.mark.late)

# An emulated processor with the variants that it has; portable last, always. AVX-512 must not leak
# into code that a Haswell runs, nor AVX into code that a Nehalem runs. All have an instruction for
# checksums. The late ones have no variant that the others lack.
PROCESSORS = [
    ("x86", "Haswell", ["avx2", "portable"]),
    late("x86", "max,avx512f=off", ["avx2", "portable"]),
    ("x86", "Nehalem", ["portable"]),
    ("aarch64", "max", ["neon_i8mm", "neon_dotprod", "neon", "portable"]),
    late("aarch64", "neoverse-n1", ["neon_dotprod", "neon", "portable"]),
    late("aarch64", "cortex-a72", ["neon", "portable"]),
]
FORMATS = ("q4", "q8", "bf16", "f32")
PROMPT_TOKENS, NEW_TOKENS, CONTEXT, MAX_ROWS = 70, 8, 100, 32


@dataclass(frozen=True, kw_only=True)
class Dumped:
    """A dumped model with a prompt, and what this machine answers."""

    path: Path
    prompt: list[int]
    tokens: list[int]
    digest: str

    @property
    def arguments(self) -> list[str]:
        prompt = ",".join(map(str, self.prompt))
        return ["run", str(self.path), "--tokens", prompt, "--max-tokens", str(NEW_TOKENS)]


@pytest.fixture(scope="module")
def runners() -> dict[str, Path]:
    return {}


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dumped]:
    """A model of awkward sizes in every weight format."""
    folder = tmp_path_factory.mktemp("dumps")
    names = list(ODD_SPECS)[::-1]  # mixtures of experts and latent attention first
    return {
        weight_format: _dump(folder / weight_format, names[index % len(names)], weight_format)
        for index, weight_format in enumerate(FORMATS)
    }


def _runner(runners: dict[str, Path], build: str) -> Path:
    if build not in runners:
        runners[build] = build_runner(build)
    return runners[build]


def _dump(path: Path, name: str, weight_format: str) -> Dumped:
    spec = ODD_SPECS[name]
    # With tiny numbers in it, which must count alike whether a processor flushes them or not.
    source = tiny_source(random_tensors(spec, 3), {}, 3, bf16=weight_format != "f32")
    kv_format = "f32" if weight_format in ("f32", "q8") else "f16"
    program = lower(build_graph(spec), make_split(spec, (1,), stages=1), 0)
    weights = load_weights(program, source, weight_format)
    rng = np.random.default_rng(5)
    prompt = rng.integers(0, spec.vocab_size, size=PROMPT_TOKENS).tolist()
    options = DumpOptions(
        weight_format=weight_format,
        kv_format=kv_format,
        context=CONTEXT,
        max_rows=MAX_ROWS,
        end_tokens=(),
    )
    written = write_dump(path, program, weights, source, options)
    assert written == path.stat().st_size
    table = widen(source.read("embed_tokens", Range(start=0, stop=spec.vocab_size)))
    executor = NativeExecutor(
        program,
        weights,
        ExecutorOptions(num_pages=2, max_pages=2, max_rows=MAX_ROWS, kv_format=kv_format),
    )
    generator = Generator(
        executor,
        lambda tokens: np.ascontiguousarray(table[tokens]),
        num_pages=2,
        context=CONTEXT,
        max_rows=MAX_ROWS,
        vocab_size=spec.vocab_size,
        exp=lambda values: _native.exp(values, "").reshape(-1),
    )
    params = SamplingParams(temperature=0, max_tokens=NEW_TOKENS)
    request = Request(tokens=tuple(prompt), params=params, end_tokens=frozenset())
    result = generator.run([request], digest=True)[0]
    return Dumped(path=path, prompt=prompt, tokens=list(result.tokens), digest=result.logits_digest)


def _flushes_rightly(build: str, variant: str) -> bool:
    """Qemu's VCVTPH2PS flushes f16's subnormals too, which processors never do; portable kernels
    have no such instruction."""
    return build != "x86" or variant == "portable"


@pytest.mark.parametrize("subnormals", ["kept", late("flushed")])
@pytest.mark.parametrize(("build", "processor", "variants"), PROCESSORS)
def test_kernels_give_the_golden_digests_on_an_emulated_processor(
    build: str, processor: str, variants: list[str], subnormals: str, runners: dict[str, Path]
) -> None:
    arguments = (_runner(runners, build), "verify", "--subnormals", subnormals)
    outcome = run_runner(*arguments, build=build, processor=processor)
    lines = [line.split() for line in outcome.out.splitlines()]
    kernels = [line for line in lines if line[0] != "crc32c"]
    assert list(dict.fromkeys(line[0] for line in kernels)) == variants
    assert len(kernels) == len(variants) * len(_native.golden("portable"))
    if subnormals == "flushed":
        kernels = [line for line in kernels if _flushes_rightly(build, line[0])]
    assert kernels and {line[-1] for line in kernels} == {"same"}, outcome.out
    checksums = [line[1:] for line in lines if line[0] == "crc32c"]
    quick = {"x86": "sse4.2", "aarch64": "armv8-crc"}[build]
    assert checksums == [[quick, "same"], ["tables", "same"]]


@pytest.mark.parametrize("every", [False, late(True)])
@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize(("build", "processor", "variants"), PROCESSORS)
def test_a_generation_is_the_same_on_an_emulated_processor(
    build: str,
    processor: str,
    variants: list[str],
    weight_format: str,
    every: bool,
    runners: dict[str, Path],
    dumps: dict[str, Dumped],
) -> None:
    dumped, runner = dumps[weight_format], _runner(runners, build)
    # The fastest variant on two threads, any other on one; the fastest and the plainest once more
    # where subnormals are flushed.
    runs = [(variant, "2" if variant == variants[0] else "1", "kept") for variant in variants]
    ends = dict.fromkeys((variants[0], variants[-1]))
    runs += [(one, "1", "flushed") for one in ends if _flushes_rightly(build, one)]
    if not every:  # half of them with this format, and the other half with the next one
        runs = runs[FORMATS.index(weight_format) % 2 :: 2] or runs
    for variant, threads, subnormals in runs:
        outcome = run_runner(
            runner,
            *dumped.arguments,
            *("--isa", variant, "--threads", threads, "--subnormals", subnormals),
            build=build,
            processor=processor,
        )
        assert outcome.status == 0, outcome.err
        answer = json.loads(outcome.out)
        assert answer["isa"] == variant
        assert answer["tokens"] == dumped.tokens
        assert answer["logits_digest"] == dumped.digest
        assert answer["numerics_version"] == NUMERICS_VERSION


@pytest.mark.parametrize("build", ["x86", late("clang")])
def test_kernels_give_the_golden_digests_here(build: str, runners: dict[str, Path]) -> None:
    """Also compiled with clang; and avx2_vnni, in an encoding that AVX-512 processors have."""
    flushed = run_runner(_runner(runners, build), "verify", "--subnormals", "flushed")
    assert flushed.status == 0, flushed.out + flushed.err
    outcome = run_runner(_runner(runners, build), "verify")
    assert outcome.status == 0, outcome.out + outcome.err
    variants = {line.split()[0] for line in outcome.out.splitlines()} - {"crc32c"}
    assert set(_native.isa_variants()) <= variants | {"avx2_vnni"}
    if build == "x86" and "avx512" in variants:
        assert "avx2_vnni" in variants


def test_a_dumped_model_gives_the_command_s_answer(
    runners: dict[str, Path], tmp_path: Path
) -> None:
    asked = ("run", "demo", "--prompt", "What is 17 + 25?", "--max-tokens", "24", "--json")
    with start_command(*asked) as command:
        expected = command.finish().json
    with start_command("dump", "demo", tmp_path / "demo") as command:
        assert command.finish().status == 0
    prompt = ",".join(map(str, expected["prompt_token_ids"]))
    arguments = ("run", tmp_path / "demo", "--tokens", prompt, "--max-tokens", "24")
    answer = json.loads(run_runner(_runner(runners, "x86"), *arguments).out)
    assert answer["tokens"] == expected["tokens"]  # up to the end token
    assert answer["logits_digest"] == expected["logits_digest"]


@pytest.mark.parametrize("isa", _native.isa_variants())
def test_the_module_gives_the_golden_digests(isa: str) -> None:
    found = _native.golden(isa)
    assert all(digest == expected for _, digest, expected in found), found
    assert len({digest for _, digest, _ in found}) == len(found)
    assert _native.numerics_version() == NUMERICS_VERSION


def test_the_runner_says_what_it_cannot_do(
    runners: dict[str, Path], dumps: dict[str, Dumped], tmp_path: Path
) -> None:
    runner, dumped = _runner(runners, "x86"), dumps["q4"]
    data = dumped.path.read_bytes()

    def refused(content: bytes, *arguments: str) -> str:
        path = tmp_path / "changed"
        path.write_bytes(content)
        outcome = run_runner(runner, "run", path, *(arguments or ("--tokens", "1")))
        assert outcome.status == 2, (outcome.status, outcome.out)
        return outcome.err

    assert "no dump" in refused(bytes(64) + data[64:])  # a header that was never written
    assert "version is 1" in refused(data[:8] + struct.pack("<i", 1) + data[12:])
    assert "numerics version is 7" in refused(data[:12] + struct.pack("<i", 7) + data[16:])
    assert "too early" in refused(data[: len(data) - 5])
    assert "too early" in refused(data[:40])
    assert "damaged" in refused(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert "not in the vocabulary" in refused(data, "--tokens", "1,99999999")
    assert "the context holds 100" in refused(data, "--tokens", ",".join(["1"] * 100))
    assert "prompt is empty" in refused(data, "--max-tokens", "3")
    assert "it must be 1 to" in refused(data, "--tokens", "1", "--threads", "0")
    assert "must be kept or flushed" in refused(data, "--tokens", "1", "--subnormals", "0")
    assert "no ISA variant 'abacus'" in refused(data, "--tokens", "1", "--isa", "abacus")
    assert run_runner(runner, "run", tmp_path / "missing").status == 2
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):  # nobody will ever write to the one, and the other is a folder
        outcome = run_runner(runner, "run", tmp_path / name)
        assert outcome.status == 2 and "is no plain file" in outcome.err
    assert run_runner(runner).status == 2


def test_a_forged_description_is_refused_or_run_but_never_crashes(
    runners: dict[str, Path], dumps: dict[str, Dumped], tmp_path: Path
) -> None:
    """Random changes under a right checksum: everything read must be checked on its own."""
    runner, dumped = _runner(runners, "x86"), dumps["q8"]
    data = bytearray(dumped.path.read_bytes())
    offset, size = struct.unpack_from("<QQ", data, 16)
    rng, path = random.Random(1), tmp_path / "forged"
    statuses = []
    for _ in range(200):
        forged = bytearray(data)
        for _ in range(rng.choice((1, 1, 3))):
            at = offset + rng.randrange(size)
            forged[at] = rng.choice((0, 1, 0x7F, 0xFF, forged[at] ^ (1 << rng.randrange(8))))
        description = np.frombuffer(bytes(forged[offset : offset + size]), np.uint8)
        struct.pack_into("<Q", forged, 32, _native.checksum(description))
        path.write_bytes(forged)
        outcome = run_runner(runner, "run", path, "--tokens", "1,2,3", "--max-tokens", "2")
        assert outcome.status in (0, 1, 2), (outcome.status, outcome.err)
        statuses.append(outcome.status)
    assert 0 in statuses and 2 in statuses
