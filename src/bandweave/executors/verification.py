"""Verification: whether this machine's kernels compute what docs/numerics.md says.

Compares digests that the native module makes of fixed numbers with those that it has stored; knows
no models. A difference means a faulty processor or build, whose answers are not those of others.
"""

from __future__ import annotations

from dataclasses import dataclass

from bandweave import NUMERICS_VERSION, _native


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What one kernel variant gave: names of all kernels, and of those whose digest differs."""

    isa: str
    kernels: tuple[str, ...]
    different: tuple[str, ...]


def verify_kernels(isa: str) -> Verification:
    """Runs every kernel of a variant that this processor has, on some milliseconds of work.

    ``ImportError`` where the module follows other numerics than this package.
    """
    version = _native.numerics_version()
    if version != NUMERICS_VERSION:
        raise ImportError(
            f"the native module follows numerics version {version}, bandweave {NUMERICS_VERSION}"
        )
    found = _native.golden(isa)
    return Verification(
        isa=isa,
        kernels=tuple(name for name, _, _ in found),
        different=tuple(name for name, digest, expected in found if digest != expected),
    )
