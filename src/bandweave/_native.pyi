"""The C++ core, as native/bindings/module.cpp binds it."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Triple = tuple[int, int, int]

class StepError(RuntimeError): ...

def isa_variants() -> list[str]: ...
def read_bandwidth(
    threads: int, bytes: int, rounds: int = 5, cpus: Sequence[int] = ...
) -> float: ...
def matrix_bytes(format: str, outputs: int, inputs: int, unit: int) -> int: ...
def kv_head_bytes(dim: int, half: bool) -> int: ...
def exp(x: Floats, isa: str = "") -> Floats: ...
def join_locally(a: Exchange, b: Exchange) -> None: ...

class Arena:
    def __init__(self, bytes: int) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def used(self) -> int: ...

class Matrix:
    def __init__(self, arena: Arena, format: str, outputs: int, inputs: int, unit: int) -> None: ...
    def pack(self, first_output: int, values: npt.NDArray[np.generic]) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def panels(self) -> npt.NDArray[np.uint8]: ...

class Program:
    def __init__(
        self,
        node: int,
        num_nodes: int,
        hidden_size: int,
        vocab_size: int,
        cache: Triple,
        inv_freq: Sequence[float],
    ) -> None: ...
    def add_buffer(self, width: int, grid: bool, logit_rows: bool) -> int: ...
    def add_matrix(self, matrix: Matrix) -> int: ...
    def add_vector(self, values: Floats) -> int: ...
    def add_op(
        self,
        kind: str,
        name: str,
        inputs: Sequence[Triple],
        outputs: Sequence[Triple],
        matrix: int,
        vector: int,
        attributes: Mapping[str, object],
    ) -> None: ...

class Exchange:
    def __init__(
        self, node: int, names: Sequence[str], generation: int, stall_seconds: float, spin: bool
    ) -> None: ...
    def add_tcp(self, peer: int, descriptor: int) -> None: ...
    def abort(self, reason: str) -> None: ...
    def leave(self) -> None: ...

class Executor:
    def __init__(
        self,
        program: Program,
        max_rows: int,
        num_pages: int,
        max_pages: int,
        half_kv: bool,
        threads: int,
        cpus: Sequence[int],
        spin: bool,
        isa: str,
        exchange: Exchange | None,
    ) -> None: ...
    def run(
        self,
        tokens: Ints,
        slots: Ints,
        positions: Ints,
        wants: Ints,
        tables: Ints,
        embeddings: Floats,
    ) -> Floats: ...
    def best(
        self,
        tokens: Ints,
        slots: Ints,
        positions: Ints,
        wants: Ints,
        tables: Ints,
        embeddings: Floats,
    ) -> list[int]: ...
    def follow(self, wake_descriptor: int = -1) -> int: ...
    def bill(self, decode: bool) -> dict[str, float]: ...
    @property
    def progress(self) -> int: ...
    @property
    def work_bytes(self) -> int: ...
