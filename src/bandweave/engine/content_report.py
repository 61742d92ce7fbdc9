"""The node's side of comparing content: what of its share it compares itself, and what it reports.

Knows a node's own copy and what it was told of the controller's; knows no other nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.content.blocks import Content, block_bytes, run_bytes
from bandweave.content.manifest import MANIFEST, manifest_path, read_manifest
from bandweave.files import is_there
from bandweave.messages import BlockSums, ContentReport
from bandweave.programs.program import Part

_BLOCKS_A_MESSAGE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class OwnChecks:
    """Bytes of a node's share by why they need no report: they are in the controller's very files,
    or were compared with a manifest. ``runs``: the rest."""

    same_file_bytes: int
    manifest_bytes: int
    runs: tuple[BlockSums, ...]

    def messages(self) -> Iterator[ContentReport]:
        """The reports, of some hundred kilobytes each."""
        some: list[BlockSums] = []
        blocks = 0
        for run in self.runs:
            some.append(run)
            blocks += len(run.sums) // 16
            if blocks >= _BLOCKS_A_MESSAGE:
                yield ContentReport(blocks=tuple(some))
                some, blocks = [], 0
        if some:
            yield ContentReport(blocks=tuple(some))


def is_compared(folder: Folder, name: str, own_files: Collection[str]) -> bool:
    """Whether a tensor needs no look at its content: it lies in the controller's very files, and no
    manifest beside them says what it should be."""
    return folder.is_in(name, own_files) and not is_there(manifest_path(folder.path))


def check_own(
    folder: Folder, content: Content, own_files: Collection[str], unread: Sequence[Part] = ()
) -> OwnChecks:
    """Sorts what a share was made of. ``own_files``: keys of the controller's files, as far as
    this machine has them; ``unread``: what is in those and was not looked at, where its content is
    not known from elsewhere. ``CheckpointError`` where a manifest beside this copy disagrees with
    it."""
    manifest = read_manifest(folder.path, folder.layout_fingerprint().headers)
    same = compared = 0
    for part in unread:
        if part.tensor not in content.tensors:
            same += sum(block_bytes(part.unit, folder.shape(part.tensor),
                                    folder.read_bits(part.tensor)).tolist())  # fmt: skip
    runs: list[BlockSums] = []
    for name, unit, first, sums in content.runs():
        size = run_bytes(unit, folder.shape(name), folder.read_bits(name), first, len(sums))
        expected = None if manifest is None else manifest.tensors.get(name)
        if expected is not None and expected.unit == unit:
            if not np.array_equal(expected.sums[first : first + len(sums)], sums):
                raise CheckpointError(
                    f"{folder.path / folder.file_name(name)} is damaged: its tensor "
                    f"{folder.stored_name(name)} is not what {MANIFEST} beside it says; download "
                    "the file again"
                )
            compared += size
        if folder.is_in(name, own_files):
            same += size
            continue
        runs.append(
            BlockSums(
                tensor=name,
                file=folder.file_name(name),
                columns=unit.columns,
                size=unit.size,
                item_bits=folder.read_bits(name),
                first=first,
                sums=sums.astype(">u8").tobytes().hex(),
            )
        )
    return OwnChecks(same_file_bytes=same, manifest_bytes=compared, runs=tuple(runs))
