"""Drafts: the draft model's place on node 0: whether it fits, what it needs, how it is loaded.

Joins a draft's checkpoint, its program and an executor. Knows no requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.folder import Folder
from bandweave.engine.memory import NodeMemory, node_memory, state_slots
from bandweave.executors.backend import NATIVE, NodeExecutor
from bandweave.executors.executor import PAGE_SIZE, ExecutorOptions
from bandweave.generation.speculation.model_drafter import ModelDrafter
from bandweave.models.registry import build_graph
from bandweave.programs.program import Program
from bandweave.programs.split import make_split
from bandweave.weights.loading import Progress, load_weights
from bandweave.weights.stored_formats import node_program

Embed = Callable[[npt.NDArray[np.int32]], npt.NDArray[np.float32]]


def check_draft(folder: Folder, draft: Folder) -> None:
    """``ValueError`` where a draft's tokens cannot be the model's."""
    own, other = folder.spec.vocab_size, draft.spec.vocab_size
    if own != other:
        raise ValueError(
            f"the draft model {draft.path.name} has a vocabulary of {other} tokens, "
            f"{folder.path.name} one of {own}; a draft model needs the same vocabulary"
        )


def draft_context(draft: Folder, context: int) -> int:
    """Tokens of a sequence that the draft model can follow."""
    return min(context, draft.spec.run_length)


def draft_memory(
    draft: Folder, weight_format: str, options: ExecutorOptions, context: int, streams: int
) -> NodeMemory:
    """What the draft model adds to node 0; ``options`` are those of the node's own model."""
    own = _options(draft, options, context, streams)
    return node_memory(_program(draft, weight_format), weight_format, own)


def load_draft(
    draft: Folder,
    embed: Embed,
    *,
    weight_format: str,
    options: ExecutorOptions,
    context: int,
    streams: int,
    team_of: NodeExecutor,
    on_progress: Progress = lambda done, total: None,
) -> ModelDrafter:
    """The draft model whole, on the threads of the node's own executor.

    ``embed`` gives its embedding rows. The ``CheckpointError`` of loading names the tensor.
    """
    program = _program(draft, weight_format)
    own = _options(draft, options, context, streams)
    # Not from the cache of packed weights: a draft model is small.
    weights = load_weights(program, draft, weight_format, on_progress, threads=own.threads)
    executor = NATIVE.make_executor(program, weights, own, team_of=team_of)
    return ModelDrafter(
        executor,
        embed,
        num_pages=own.num_pages,
        num_states=own.num_states,
        context=draft_context(draft, context),
        max_rows=own.max_rows,
        exp=lambda values: NATIVE.exp(values, options.isa),
        progress=lambda: executor.progress,
    )


def _program(draft: Folder, weight_format: str) -> Program:
    split = make_split(draft.spec, (1,))
    return node_program(draft, build_graph(draft.spec), split, 0, weight_format)


def _options(
    draft: Folder, options: ExecutorOptions, context: int, streams: int
) -> ExecutorOptions:
    pages = -(-draft_context(draft, context) // PAGE_SIZE)
    return replace(
        options,
        num_pages=pages * streams,
        max_pages=pages,
        num_states=2 * state_slots(draft.spec, streams),  # guesses have slots of their own
        max_drafted=0,
    )
