from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


class StepError(RuntimeError):
    pass

def isa_variants() -> list[str]:
    """The ISA variants that this processor can run, the fastest first."""

def read_bandwidth(threads: int, bytes: int, rounds: int = 5, cpus: Sequence[int] = []) -> float:
    """Bytes per second of a plain read by `threads` threads together."""

def matrix_bytes(format: str, outputs: int, inputs: int, unit: int) -> int:
    """Packed size of a matrix in bytes."""

def kv_head_bytes(dim: int, half: bool) -> int:
    """Bytes of one KV head in one page."""

def exp(x: Annotated[NDArray[numpy.float32], dict(order='C', device='cpu', writable=False)], isa: str = '') -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """The engine's own exponential, [1, n] float32."""

class Arena:
    def __init__(self, bytes: int) -> None: ...

    @property
    def size(self) -> int: ...

    @property
    def used(self) -> int: ...

class Matrix:
    def __init__(self, arena: Arena, format: str, outputs: int, inputs: int, unit: int) -> None: ...

    def pack(self, first_output: int, values: Annotated[NDArray, dict(shape=(None, None), device='cpu', writable=False)]) -> None:
        """Packs rows [n, inputs]; ValueError says what is wrong with the values."""

    @property
    def nbytes(self) -> int: ...

    @property
    def panels(self) -> Annotated[NDArray[numpy.uint8], dict(shape=(None,))]:
        """The packed bytes."""

class Program:
    def __init__(self, node: int, num_nodes: int, hidden_size: int, vocab_size: int, cache: tuple[int, int, int], inv_freq: Sequence[float]) -> None: ...

    def add_buffer(self, width: int, grid: bool, logit_rows: bool) -> int: ...

    def add_matrix(self, matrix: Matrix) -> int: ...

    def add_vector(self, values: Annotated[NDArray[numpy.float32], dict(order='C', device='cpu', writable=False)]) -> int: ...

    def add_op(self, kind: str, name: str, inputs: Sequence[tuple[int, int, int]], outputs: Sequence[tuple[int, int, int]], matrix: int, vector: int, attributes: dict) -> None: ...

class Exchange:
    def __init__(self, node: int, names: Sequence[str], generation: int, stall_seconds: float, spin: bool) -> None: ...

    def add_tcp(self, peer: int, descriptor: int) -> None:
        """Takes over a connected stream socket."""

    def abort(self, reason: str) -> None: ...

    def leave(self) -> None: ...

def join_locally(a: Exchange, b: Exchange) -> None:
    """Links two nodes of one process."""

class Executor:
    def __init__(self, program: Program, max_rows: int, num_pages: int, max_pages: int, half_kv: bool, threads: int, cpus: Sequence[int], spin: bool, isa: str, exchange: Exchange | None) -> None: ...

    def run(self, tokens: Annotated[NDArray[numpy.int32], dict(order='C', device='cpu', writable=False)], slots: Annotated[NDArray[numpy.int32], dict(order='C', device='cpu', writable=False)], positions: Annotated[NDArray[numpy.int32], dict(order='C', device='cpu', writable=False)], wants: Annotated[NDArray[numpy.int32], dict(order='C', device='cpu', writable=False)], tables: Annotated[NDArray[numpy.int32], dict(order='C', device='cpu', writable=False)], embeddings: Annotated[NDArray[numpy.float32], dict(order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]: ...

    def best(self, tokens: Annotated[NDArray[numpy.int32], dict(order='C', device='cpu', writable=False)], slots: Annotated[NDArray[numpy.int32], dict(order='C', device='cpu', writable=False)], positions: Annotated[NDArray[numpy.int32], dict(order='C', device='cpu', writable=False)], wants: Annotated[NDArray[numpy.int32], dict(order='C', device='cpu', writable=False)], tables: Annotated[NDArray[numpy.int32], dict(order='C', device='cpu', writable=False)], embeddings: Annotated[NDArray[numpy.float32], dict(order='C', device='cpu', writable=False)]) -> list[int]:
        """Like run, but returns each wanting row's best token."""

    @property
    def progress(self) -> int: ...

    def follow(self, wake_descriptor: int = -1) -> int:
        """
        1 after a step, 0 when node 0 has left, 2 when the descriptor is readable.
        """

    @property
    def work_bytes(self) -> int: ...

    def bill(self, decode: bool) -> dict:
        """Seconds by item since the start, as thread 0 saw them, and counts."""
