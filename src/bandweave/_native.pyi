"""The C++ core, as native/bindings binds it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

PAGE_SIZE: int  # positions of a KV page, and of a chunk of attention (docs/numerics.md)
HOP_BYTES: int  # see native/executor/reduction.h
OVERLAP_ROWS: int
FRAME_BYTES: int
STATE_NUMBERS: int

class StepError(RuntimeError): ...

def isa_variants() -> list[str]: ...
def golden(isa: str, flush_to_zero: bool = False) -> list[tuple[str, int, int]]: ...
def numerics_version() -> int: ...
def matrix_bytes(format: str, outputs: int, inputs: int, unit: int) -> int: ...
def kv_head_bytes(dim: int, half: bool) -> int: ...
def latent_page_bytes(k_dim: int, half: bool) -> int: ...
def exp(x: Floats, isa: str = "", flush_to_zero: bool = False) -> Floats: ...
def content_sums(
    values: npt.NDArray[np.generic],
    first_row: int,
    block_rows: int = 0,
    block_columns: int = 0,
    source: str = "",
) -> npt.NDArray[np.uint64]: ...
def widen_blocks(source: str, values: npt.NDArray[np.uint8]) -> Floats: ...
def checksum(data: npt.NDArray[np.uint8]) -> int: ...
def crc32c_variants() -> list[str]: ...
def crc32c(data: bytes, variant: str, sum: int = 0) -> int: ...
def shared_transport_bytes() -> int: ...
def load_libcrypto(name: str) -> bool: ...
def has_aes() -> bool: ...
def place(matrices: Sequence[Matrix], cpus: Sequence[int]) -> None: ...
def reduction_bytes(rows: int, width: int, nodes: int) -> int: ...
def reduction(rows: int, width: int, nodes: int) -> tuple[int, int, int]: ...
def join_locally(a: Exchange, b: Exchange) -> None: ...

class PlainRead:
    def __init__(self, threads: int, bytes: int, cpus: Sequence[int] = ...) -> None: ...
    def bytes_per_s(self, threads: int, rounds: int) -> float: ...

class Arena:
    def __init__(self, bytes: int) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def used(self) -> int: ...

class Matrix:
    def __init__(self, arena: Arena, format: str, outputs: int, inputs: int, unit: int) -> None: ...
    def clear(self) -> None: ...
    def pack(
        self,
        first_output: int,
        values: npt.NDArray[np.generic],
        first_row: int = 0,
        block_rows: int = 0,
        block_columns: int = 0,
        source: str = "",
    ) -> npt.NDArray[np.uint64]: ...
    def pack_file(
        self,
        first_output: int,
        descriptor: int,
        start: int,
        stride: int,
        rows: int,
        first_row: int = 0,
        block_rows: int = 0,
        block_columns: int = 0,
        source: str = "f32",
    ) -> npt.NDArray[np.uint64] | None: ...
    def release(self) -> None: ...
    @property
    def format(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def panels(self) -> npt.NDArray[np.uint8]: ...

class Program:
    def __init__(
        self, encoded: bytes, matrices: Sequence[Matrix], vectors: Sequence[Floats]
    ) -> None: ...

class Exchange:
    def __init__(
        self, node: int, names: Sequence[str], generation: int, stall_seconds: float, spin: bool
    ) -> None: ...
    def add_tcp(self, peer: int, descriptor: int) -> None: ...
    def add_sealed(
        self,
        peer: int,
        descriptor: int,
        cipher: str,
        send_key: bytes,
        receive_key: bytes,
        seals_a_key: int = ...,
    ) -> None: ...
    def add_emulated(
        self, peer: int, descriptor: int, latency: float, bytes_per_s: float
    ) -> None: ...
    def add_shared(self, peer: int, descriptor: int, memory: int, first: bool) -> None: ...
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
        wire: str,
        hop_bytes: int,
        overlap_rows: int,
        fetch_ahead: int,
        exchange: Exchange | None,
        team_of: Executor | None = None,
        flush_to_zero: bool = False,
        num_states: int = 0,
        max_drafted: int = 0,
    ) -> None: ...
    def run(
        self,
        tokens: Ints,
        slots: Ints,
        positions: Ints,
        wants: Ints,
        tables: Ints,
        embeddings: Floats,
        prefill: bool = False,
        sources: Ints | None = None,
        states: Ints | None = None,
    ) -> Floats: ...
    def best(
        self,
        tokens: Ints,
        slots: Ints,
        positions: Ints,
        wants: Ints,
        tables: Ints,
        embeddings: Floats,
        prefill: bool = False,
        sources: Ints | None = None,
        states: Ints | None = None,
    ) -> list[int]: ...
    @property
    def staged(self) -> bool: ...
    @property
    def under_way(self) -> int: ...
    def start(
        self,
        tokens: Ints,
        slots: Ints,
        positions: Ints,
        wants: Ints,
        tables: Ints,
        embeddings: Floats,
        prefill: bool,
        states: Ints | None,
        best_only: bool,
    ) -> None: ...
    def finish(self) -> Floats | list[int]: ...
    def follow(self, wake_descriptor: int = -1) -> int: ...
    def open(
        self,
        tokens: Ints,
        slots: Ints,
        positions: Ints,
        wants: Ints,
        tables: Ints,
        prefill: bool,
        sources: Ints | None = None,
        states: Ints | None = None,
    ) -> None: ...
    def join(self, wake_descriptor: int = -1) -> int: ...
    def step(
        self,
    ) -> tuple[
        list[int], list[int], list[int], list[int], list[int], int, bool, list[int], list[int]
    ]: ...
    def perform(self, index: int, embeddings: Floats | None = None) -> None: ...
    def floats(self, buffer: int) -> Floats: ...
    def grid(self, buffer: int) -> npt.NDArray[np.int64]: ...
    def bill(self, decode: bool) -> dict[str, float]: ...
    @property
    def progress(self) -> int: ...
    @property
    def work_bytes(self) -> int: ...
    @property
    def fetch_ahead(self) -> int: ...
