"""Placement: which processes a model's nodes become, what each is told, and whether it fits.

Turns options into launchers and assignments. Knows no messages and no steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.engine.assignment import Assignment
from bandweave.engine.drafts import check_draft, draft_memory
from bandweave.engine.memory import NodeMemory, check_memory, executor_sizes, gigabytes, node_memory
from bandweave.engine.options import DEFAULT_CONTEXT, EngineOptions
from bandweave.formats.names import AUTO, STORED
from bandweave.host.binding import Binding, bind_node
from bandweave.host.machine import (
    allowed_cpus,
    available_memory_bytes,
    numa_nodes,
    usable_cpus,
)
from bandweave.hub.store import hub_name
from bandweave.mesh.address import Address
from bandweave.mesh.host import host_id
from bandweave.messages import Description, Join, LinkEncryption
from bandweave.models.registry import build_graph
from bandweave.nodes.host_launcher import HostLauncher, OnWaiting
from bandweave.nodes.host_resources import node_rooms, node_threads, short_of_memory
from bandweave.nodes.launcher import Launcher
from bandweave.nodes.local_launcher import LocalLauncher
from bandweave.nodes.node_handle import NodeHandle
from bandweave.planning.search.fit import fitting_shares
from bandweave.programs.split import Split, make_split
from bandweave.weights.stored_formats import node_program


def resolve_context(folder: Folder, options: EngineOptions) -> int:
    spec, asked = folder.spec, options.run.context
    longest = spec.run_length
    if asked is not None and longest < asked <= spec.context_length:
        raise ValueError(
            f"a context of {asked} tokens for {folder.path.name}: beyond {longest} "
            f"{spec.beyond_run_length}, which cannot be run yet; choose --context up to {longest}"
        )
    if options.run.context is None:
        return min(longest, DEFAULT_CONTEXT)
    if not 1 <= options.run.context <= longest:
        raise ValueError(
            f"a context of {options.run.context} tokens: the model's is from 1 to {longest}; "
            "choose --context among them"
        )
    return options.run.context


def settle_format(folder: Folder, options: EngineOptions) -> EngineOptions:
    """The options with a weight format where that is left to us: blocks of a GGUF file stay as they
    are stored, other weights become q4."""
    if options.run.weight_format != AUTO:
        return options
    chosen = STORED if folder.is_gguf else "q4"
    return replace(options, run=replace(options.run, weight_format=chosen))


def make_launcher(options: EngineOptions, on_waiting: OnWaiting = lambda name: None) -> Launcher:
    """What starts the nodes where the options say that they run."""
    if options.hosts:
        assert options.secret is not None
        hosts = (*options.hosts, *options.spare_hosts)
        return HostLauncher(
            hosts, options.secret, on_waiting=on_waiting, encryption=options.encryption
        )
    return LocalLauncher(cache=options.cache_folder, spare=options.spare)


def local_threads(options: EngineOptions) -> int:
    """Threads of each node of this machine."""
    return options.threads or max(1, len(usable_cpus()) // _nodes_here(options))


def make_assignments(
    folder: Folder,
    options: EngineOptions,
    launcher: Launcher,
    context: int,
    descriptions: Sequence[Description] = (),
) -> list[Assignment]:
    """What each node is told to hold; ``descriptions`` are those of hosts."""
    draft, draft_fingerprint, draft_hub = "", None, ""
    if options.draft:
        with Folder.open(options.draft) as opened:
            check_draft(folder, opened)
            draft, draft_fingerprint = str(opened.path.resolve()), opened.fingerprint()
            draft_hub = hub_name(opened.path)
    common = Assignment(
        model=str(folder.path.resolve()),
        fingerprint=folder.fingerprint(),
        shares=tuple(Fraction(share) for share in options.shares),
        stages=options.stages,
        rank=0,
        run=replace(options.run, context=context),
        threads=options.threads or 0,
        cache=options.cache,
        draft=draft,
        draft_fingerprint=draft_fingerprint,
        host_id=host_id(),
        own_files=tuple(sorted(folder.file_keys)),
        hub=hub_name(folder.path),
        draft_hub=draft_hub,
    )
    if not launcher.local:
        threads = node_threads(descriptions, options.threads)
        return [replace(common, rank=rank, threads=count) for rank, count in enumerate(threads)]
    return [
        _local(common, options, rank, pin=launcher.processes) for rank in range(len(common.shares))
    ]


def _nodes_here(options: EngineOptions) -> int:
    """Processes that share this machine, those of other groups too."""
    return max(options.all_nodes, options.first_node + len(options.shares))


def make_join(
    options: EngineOptions,
    handles: Sequence[NodeHandle],
    generation: int,
    links: LinkEncryption = LinkEncryption(),  # noqa: B008 (it never changes)
) -> Join:
    """How these nodes are to meet, whose ranks are their places."""
    return Join(
        generation=generation,
        nodes=tuple(handle.node for handle in handles),
        names=tuple(handle.name for handle in handles),
        addresses=tuple(handle.address for handle in handles if handle.address is not None),
        stall_seconds=options.stall_seconds,
        emulate=options.emulate,
        alternatives=_alternatives(handles),
        links=links,
    )


def _alternatives(handles: Sequence[NodeHandle]) -> tuple[tuple[Address, ...], ...]:
    """All addresses of every node, where any has told several."""
    if all(len(handle.addresses) < 2 for handle in handles):
        return ()
    return tuple(
        handle.addresses or ((handle.address,) if handle.address is not None else ())
        for handle in handles
    )


def _local(common: Assignment, options: EngineOptions, rank: int, *, pin: bool) -> Assignment:
    """A node of this machine: pinned beside its neighbours where there are processors enough for
    all threads."""
    threads, usable, num_nodes = local_threads(options), usable_cpus(), _nodes_here(options)
    binding = Binding()
    if pin:
        binding = bind_node(
            options.first_node + rank,
            num_nodes,
            threads,
            usable=usable,
            allowed=allowed_cpus(),
            numa=numa_nodes(),
        )
    return replace(
        common,
        rank=rank,
        threads=threads,
        cpus=binding.pinned,
        home=binding.home,
        spin=threads * num_nodes <= len(usable),
    )


def node_needs(
    folder: Folder, split: Split, options: EngineOptions, context: int
) -> list[NodeMemory]:
    """What every node of a split will need."""
    graph = build_graph(folder.spec, further=options.run.further)
    sizes = executor_sizes(folder.spec, options.run, context)
    needs = [
        node_memory(
            node_program(folder, graph, split, node, options.run.weight_format),
            options.run.weight_format,
            sizes,
        )
        for node in range(split.num_nodes)
    ]
    if options.draft:
        with Folder.open(options.draft) as draft:
            check_draft(folder, draft)
            needs[0] += draft_memory(
                draft, options.run.weight_format, sizes, context, options.run.streams
            )
    return needs


def check_local_memory(
    folder: Folder, split: Split, options: EngineOptions, context: int, *, kept: int = 0
) -> None:
    """``MemoryError`` where the nodes, which share this machine's memory, need more than it has
    beside the bytes of weights that they hold already and have ``kept``."""
    needs = node_needs(folder, split, options, context)
    together = NodeMemory(
        weight_bytes=sum(need.weight_bytes for need in needs),
        kv_bytes=sum(need.kv_bytes for need in needs),
        work_bytes=sum(need.work_bytes for need in needs),
        base_bytes=sum(need.base_bytes for need in needs),
    )
    count = "1 node" if split.num_nodes == 1 else f"all {split.num_nodes} nodes together"
    available = available_memory_bytes()
    if available is not None:
        available += kept
    check_memory(f"{folder.path.name} on {count}", together, available)


def fit_to_hosts(
    folder: Folder,
    options: EngineOptions,
    context: int,
    descriptions: Sequence[Description],
    names: Sequence[str],
) -> EngineOptions:
    """The options, with shares that fit the hosts' memories where those are left to us. Nodes of
    one host share its memory. ``MemoryError`` names those that are short."""

    def needs(shares: Sequence[Fraction]) -> list[int]:
        split = make_split(folder.spec, shares, stages=options.stages)
        return [need.total_bytes for need in node_needs(folder, split, options, context)]

    if options.fit:
        rooms = node_rooms(descriptions, options.shares)
        shares = fitting_shares(rooms, needs, options.shares)
        if shares is not None:
            options = replace(options, shares=shares)
    needed = needs(options.shares)
    if short := short_of_memory(descriptions, needed):
        raise MemoryError(_shortage(folder.path.name, names, short, sum(needed)))
    return options


def _shortage(
    model: str, names: Sequence[str], short: Sequence[tuple[list[int], int, int]], total: int
) -> str:
    places = []
    for nodes, needed, available in short:
        who = " and ".join(names[node] for node in nodes)
        verb = "needs" if len(nodes) == 1 else "together need"
        places.append(f"{who} {verb} {gigabytes(needed)} and there are {gigabytes(available)}")
    return (
        f"{model} needs {gigabytes(total)} of memory on {len(names)} nodes, but "
        f"{'; '.join(places)} available: give that machine a smaller share, end other programs "
        "there, or choose a smaller --format or --context"
    )
