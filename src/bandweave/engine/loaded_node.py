"""LoadedNode: a node's share of a model in memory, joined to the other nodes, ready for steps.

Joins a program, weights and a mesh. Knows what a controller assigned; knows no requests.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.engine.assignment import Assignment
from bandweave.engine.content_report import OwnChecks, check_own, is_compared
from bandweave.engine.drafts import draft_memory, load_draft
from bandweave.engine.memory import NodeMemory, check_memory, executor_sizes, node_memory
from bandweave.executors.backend import NATIVE, NodeExecutor
from bandweave.executors.executor import ExecutorOptions
from bandweave.executors.last_hidden import LastHidden
from bandweave.generation.generator import Generator
from bandweave.generation.speculation.controller import Speculation
from bandweave.generation.speculation.drafter import Drafter
from bandweave.generation.speculation.layer_drafter import LayerDrafter
from bandweave.generation.speculation.ngram_drafter import NgramDrafter
from bandweave.host.binding import spans_memories
from bandweave.host.machine import (
    allowed_cpus,
    available_memory_bytes,
    numa_nodes,
    usable_cpus,
)
from bandweave.mesh.host import host_id
from bandweave.messages import Join, RouteTaken
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.nodes.context import NodeContext
from bandweave.nodes.joining import Members, meet
from bandweave.programs.program import Program
from bandweave.programs.split import make_split
from bandweave.weights.embedding import read_embeddings
from bandweave.weights.keeping import keep_weights
from bandweave.weights.loading import load_weights
from bandweave.weights.packed import Weights
from bandweave.weights.panel_cache import PanelCache, open_cache
from bandweave.weights.stored_formats import node_program

_MOST_THREADS = 4096

OnProgress = Callable[[int, int], None]  # checkpoint bytes read so far, and in all


@dataclass(frozen=True, kw_only=True)
class LoadedNode:
    """``rank``: the node's place in its generation; ``exchange`` leads to the other nodes, None
    where there are none; ``drafter`` guesses tokens on node 0, None where it does not speculate;
    ``kv_bytes`` is what the KV cache takes; ``checks``: what of the share was compared already, and
    the rest."""

    rank: int
    executor: NodeExecutor
    exchange: _native.Exchange | None
    generator: Generator
    drafter: Drafter | None
    options: ExecutorOptions
    weights: Weights
    kv_bytes: int
    checks: OwnChecks
    routes: tuple[RouteTaken, ...]
    keep: Callable[[], None] | None  # writes packed weights to the cache, in another thread

    @property
    def progress(self) -> int:
        """Grows while a step is under way."""
        return self.executor.progress + (0 if self.drafter is None else self.drafter.progress)


@dataclass(frozen=True, kw_only=True)
class PreparedNode:
    """What a node will load: its program, how it runs, and the memory that it needs."""

    program: Program
    options: ExecutorOptions
    memory: NodeMemory


def prepare_node(
    context: NodeContext,
    assignment: Assignment,
    folder: Folder,
    draft: Folder | None,
    kept_bytes: int = 0,
) -> PreparedNode:
    """Computes the node's share. ``MemoryError`` where it does not fit, with the bytes of weights
    that are in memory already and pass into it; ``ValueError`` for what cannot be loaded."""
    split = make_split(folder.spec, assignment.shares, stages=assignment.stages)
    graph = build_graph(folder.spec, further=assignment.run.further)
    program = node_program(folder, graph, split, assignment.rank, assignment.run.weight_format)
    options = _options(context, assignment, folder.spec)
    memory = node_memory(program, assignment.run.weight_format, options)
    if draft is not None:
        memory += draft_memory(
            draft, assignment.run.weight_format, options, assignment.context, assignment.run.streams
        )
    if context.listener is not None:  # threads of one process were checked together
        available = available_memory_bytes()
        if available is not None:
            available += kept_bytes
        check_memory(context.name, memory, available)
    return PreparedNode(program=program, options=options, memory=memory)


def join_node(
    context: NodeContext,
    assignment: Assignment,
    join: Join,
    prepared: PreparedNode,
    folder: Folder,
    draft: Folder | None,
    on_progress: OnProgress,
    kept: Weights | None = None,
    standby: Sequence[Weights] = (),
    wanted: Callable[[], bool] = lambda: True,
) -> LoadedNode:
    """Joins the mesh and loads what was prepared, but for what of it is ``kept``, or on
    ``standby``. ``ValueError`` for what cannot be loaded; ``StepError`` and ``HandshakeError``
    where a node cannot be reached, before anything was loaded; ``LoadingInterrupted`` where it is
    no longer ``wanted``."""
    cpus, numa = allowed_cpus(), numa_nodes()  # before any thread is pinned
    if assignment.home:
        keep_to(assignment.home)
    program, options = prepared.program, prepared.options
    members = Members(
        meeting=join.links.meeting(join.generation),
        nodes=join.nodes,
        names=join.names,
        addresses=join.addresses,
        alternatives=join.alternatives,
        cipher=join.links.cipher,
    )
    if members.rank(context.node) != assignment.rank or len(join.nodes) != len(assignment.shares):
        raise ValueError(f"{context.name} has another share than its place among the nodes says")
    mesh = meet(
        context, members, stall_seconds=join.stall_seconds, spin=options.spin, emulate=join.emulate
    )
    exchange = None if mesh is None else mesh.exchange
    cache = open_cache(context.cache if assignment.cache else "")
    own_files = frozenset(assignment.own_files if assignment.host_id == host_id() else ())
    table = program.embedding
    unread = () if table is None or not is_compared(folder, table.tensor, own_files) else (table,)
    weights = load_weights(
        program,
        folder,
        assignment.run.weight_format,
        on_progress=on_progress,
        threads=options.threads,
        cache=cache,
        readers=assignment.cpus if spans_memories(assignment.cpus, numa) else (),
        kept=kept,
        standby=standby,
        sum_table=not unread,
        wanted=wanted,
    )
    executor = NATIVE.make_executor(program, weights, options, exchange)
    drafter = None
    if assignment.run.speculate != "off" and assignment.rank == 0:
        drafter = _make_drafter(assignment, options, folder, draft, executor)
    generator = Generator(
        executor,
        partial(read_embeddings, folder),
        num_pages=options.num_pages,
        num_states=options.num_states,
        context=assignment.context,
        max_rows=assignment.run.max_rows,
        vocab_size=folder.spec.vocab_size,
        exp=lambda values: NATIVE.exp(values, options.isa),
        last_hidden=partial(
            LastHidden, program, weights.vectors, executor, executor.floats, "embeddings"
        ),
        speculation=None
        if drafter is None
        else Speculation(drafter, draft_tokens=assignment.run.draft_tokens),
        pipeline=executor.pipeline(1 if assignment.run.further else assignment.stages),
    )
    return LoadedNode(
        rank=assignment.rank,
        executor=executor,
        exchange=exchange,
        generator=generator,
        drafter=drafter,
        options=options,
        weights=weights,
        kv_bytes=prepared.memory.kv_bytes,
        checks=check_own(folder, weights.content, own_files, unread),
        routes=() if mesh is None else mesh.routes,
        keep=_keeping(weights, folder, cache, assignment, cpus),
    )


def _options(context: NodeContext, assignment: Assignment, spec: ModelSpec) -> ExecutorOptions:
    # As many threads as the controller asks, 0 for as many as there may be: more than there are
    # processors would only wait for each other.
    most = min(context.threads or len(usable_cpus()), _MOST_THREADS)
    threads = min(assignment.threads or most, most)
    return replace(
        executor_sizes(spec, assignment.run, assignment.context),
        threads=threads,
        cpus=assignment.cpus,
        spin=assignment.spin and threads <= len(usable_cpus()),
        isa=context.isa or assignment.run.isa,
        wire=assignment.run.wire,
    )


def _make_drafter(
    assignment: Assignment,
    options: ExecutorOptions,
    folder: Folder,
    draft: Folder | None,
    executor: NodeExecutor,
) -> Drafter:
    """Node 0's; ``executor`` is that of the model itself."""
    if assignment.run.further:
        return LayerDrafter(
            executor,
            partial(read_embeddings, folder),
            exp=lambda values: NATIVE.exp(values, options.isa),
        )
    if draft is None:
        return NgramDrafter()
    return load_draft(
        draft,
        partial(read_embeddings, draft),
        weight_format=assignment.run.weight_format,
        options=options,
        context=assignment.context,
        streams=assignment.run.streams,
        team_of=executor,
    )


def _keeping(
    weights: Weights,
    folder: Folder,
    cache: PanelCache | None,
    assignment: Assignment,
    cpus: tuple[int, ...],
) -> Callable[[], None] | None:
    """What starts to keep freshly packed weights, None where there are none to keep."""
    if cache is None or not (weights.fresh or weights.learnt):
        return None

    def keep() -> None:
        keep_to(cpus)  # not on the pinned processor of the thread that started this one
        keep_weights(
            weights,
            folder,
            cache,
            model=assignment.model,
            weight_format=assignment.run.weight_format,
        )

    return threading.Thread(target=keep, name="cache", daemon=True).start


def keep_to(cpus: tuple[int, ...]) -> None:
    """This thread, and those that it starts, run on these processors alone."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
