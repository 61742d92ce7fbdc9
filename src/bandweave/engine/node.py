"""Node: a state machine. It is idle, holds weights, or takes part in a generation of nodes.

Messages from the controller: ``describe`` if it likes, ``hold`` (or a probe's, see ``probing``),
``join``, which leads to the generation's own (see ``NodeLoop``), ``leave``, ``shutdown``. A
generation ends by ``leave`` or by a peer's error; the weights stay for the next one, in which this
node may have another share. Knows no text and no command line.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from bandweave.checkpoints.folder import Folder
from bandweave.collection import no_collection
from bandweave.engine.assignment import Assignment
from bandweave.engine.loaded_node import PreparedNode, join_node, keep_to, prepare_node
from bandweave.engine.model_search import find_model
from bandweave.engine.node_loop import TO_NODE_0, NodeLoop
from bandweave.engine.shared_ranges import shared_ranges
from bandweave.engine.standing_by import StandingBy
from bandweave.executors.executor import StepError
from bandweave.handshake.encryption import AUTO, NEVER
from bandweave.handshake.handover import Arrivals
from bandweave.handshake.handshake import HandshakeError
from bandweave.host.machine import allowed_cpus, memory_limits, usable_cpus
from bandweave.mesh.channel import ChannelClosed
from bandweave.mesh.host import host_id
from bandweave.messages import (
    Broken,
    Describe,
    Description,
    Echo,
    Found,
    Join,
    Leave,
    Left,
    Standby,
    decode,
    encode,
)
from bandweave.nodes.context import NodeContext
from bandweave.nodes.heartbeat import LoadingPulse
from bandweave.programs.split import make_split
from bandweave.sharing.exchange import FileExchange
from bandweave.weights.loading import LoadingInterrupted
from bandweave.weights.packed import Weights

_OVER = tuple(kind.TYPE for kind in TO_NODE_0)  # a type that came may be unhashable


def serve(context: NodeContext) -> None:
    """Runs a node to the end of its session; see ``nodes.process``."""
    with ExitStack() as stack:
        _Node(context, stack).run()


@dataclass(frozen=True, kw_only=True)
class _Held:
    """What a node holds, or will once it joins: its copies of the model and of the draft model."""

    assignment: Assignment
    folder: Folder
    draft: Folder | None
    prepared: PreparedNode


class _Node:
    """``weights`` outlive the generations that use them."""

    def __init__(self, context: NodeContext, stack: ExitStack) -> None:
        self._context, self._channel, self._stack = context, context.channel, stack
        self._held: _Held | None = None
        self._weights: Weights | None = None
        self._cpus = allowed_cpus()  # before a generation keeps to some of them
        self._standing = StandingBy(context, self._cpus)
        stack.callback(self._standing.stop)
        self._files: FileExchange | None = None
        if isinstance(context.listener, Arrivals):  # a worker's: others may lie on other machines
            self._files = FileExchange(
                context.listener, context.node, context.session, context.secret, context.log
            )
            stack.callback(self._files.close)

    def run(self) -> None:
        """``ValueError``, ``MemoryError`` and ``OSError`` for what cannot be held."""
        while True:
            message = self._channel.receive()
            kind = message.get("type")
            if kind == "shutdown":
                return
            if kind == Describe.TYPE:
                self._channel.send(encode(_description(self._context, self._held_bytes)))
            elif kind == Echo.TYPE:
                self._channel.send(encode(decode(Echo, message)))
            elif kind == Leave.TYPE:
                self._channel.send(encode(Left()))
            elif kind == Join.TYPE and self._held is not None:
                if not self._join(self._held, decode(Join, message)):
                    return
            elif kind in _OVER:
                continue  # meant for a generation that has ended meanwhile, as its sender will hear
            elif kind == Assignment.TYPE or self._held is not None:
                if not self._hold(decode(Assignment, message)):
                    return
            elif self._probe(message):
                return
            else:
                decode(Assignment, message)  # says what was due

    @property
    def _held_bytes(self) -> int:
        """Of weights in memory, those on standby too."""
        own = 0 if self._weights is None else self._weights.num_bytes
        return own + self._standing.held.num_bytes

    def _probe(self, message: dict[str, object]) -> bool:
        """Whether it was a probe's message, which a session of its own serves."""
        # Nodes that run a model start sooner without it.
        from bandweave.probing.node import PROBES, serve_probe

        if message.get("type") not in PROBES:
            return False
        serve_probe(self._context, message)
        return True

    def _hold(self, assignment: Assignment) -> bool:
        """Finds the model, says so, and joins as soon as the others have found theirs; False where
        the session is over."""
        with LoadingPulse(self._channel) as pulse, no_collection():
            held = self._find(assignment)
            pulse.moved = lambda: held.folder.moved
            if self._weights is not None and not _alike(self._held, held):
                self._weights = None
                self._standing.clear()
            self._held = held
            fingerprint = held.folder.layout_fingerprint()
            same_files = assignment.host_id == host_id() != "" and held.folder.file_keys <= set(
                assignment.own_files
            )
            found = Found(
                path=str(held.folder.path), headers=fingerprint.headers, same_files=same_files
            )
            self._channel.send(encode(found))
            message = self._channel.receive()
            if message.get("type") == "shutdown":
                return False
            if message.get("type") == Leave.TYPE:
                self._channel.send(encode(Left()))
                return True
            loop = self._enter(held, decode(Join, message), pulse)
        return loop is None or self._take_part(loop)

    def _join(self, held: _Held, join: Join) -> bool:
        """Takes part in a generation with the share that is held; False where the session is
        over."""
        with LoadingPulse(self._channel) as pulse:
            pulse.moved = lambda: held.folder.moved
            loop = self._enter(held, join, pulse)
        return loop is None or self._take_part(loop)

    def _enter(self, held: _Held, join: Join, pulse: LoadingPulse) -> NodeLoop | None:
        """Meets the others and loads what is lacking; None where they could not be met, or the
        controller has changed its mind meanwhile."""
        self._standing.stop()
        kept, self._weights = self._weights, None
        self._lead(held, join)

        def wanted() -> bool:
            """Until the controller has something to say: that another plan holds, or none."""
            if not self._channel.poll():
                return True
            held.folder.interrupt(True)
            if self._files is not None:
                self._files.interrupt()
            return False

        try:
            node = join_node(
                self._context, held.assignment, join, held.prepared, held.folder, held.draft,
                pulse.update, kept, self._standing.held.batches, wanted,
            )  # fmt: skip
        except LoadingInterrupted as interrupted:
            self._weights = interrupted.weights
            self._standing.clear()  # it has passed into them
            self._context.log("loading was interrupted: there is another plan, or none")
            if self._files is not None:
                self._files.leave()
            return None
        except (StepError, HandshakeError) as error:
            self._weights = kept
            self._broken(join.generation, str(error))
            return None
        finally:
            held.folder.interrupt(False)
        if self._files is not None:
            self._files.leave()
        if kept is None or node.weights.arena is not kept.arena:
            self._standing.clear()  # it has passed into the weights
        self._weights = node.weights
        for report in node.checks.messages():
            self._channel.send(encode(report))
        pulse.end()  # nothing may come behind "loaded" that nobody asked for
        own, memory = held.prepared.program, held.prepared.memory
        reserved = memory.kv_bytes + memory.work_bytes

        def stand_by(asked: Standby) -> None:
            self._standing.start(asked, own, held.folder, held.assignment, reserved)

        return NodeLoop(self._context, join, node, self._standing, stand_by)

    def _lead(self, held: _Held, join: Join) -> None:
        """Lets what is not on this machine come from the others that have it."""
        if self._files is None or held.folder.whole:
            return
        assignment, folder = held.assignment, held.folder
        split = make_split(folder.spec, assignment.shares, stages=assignment.stages)
        places = split.stages[split.shares[assignment.rank].stage]
        self._files.lead(
            folder,
            places.index(assignment.rank),
            [join.nodes[place] for place in places],
            shared_ranges(folder, held.prepared.program),
            dict(zip(join.nodes, join.addresses, strict=True)),
            # Whoever this machine encrypts to can take it, whatever the others do.
            AUTO if self._context.encrypted and join.links.encryption == NEVER
            else join.links.encryption,
        )  # fmt: skip

    def _take_part(self, loop: NodeLoop) -> bool:
        """Serves in a generation to its end; False where the session is over too."""
        try:
            return loop.run()
        except ChannelClosed:
            loop.leave()
            raise
        except StepError as error:
            # In this order: a peer that hangs takes no last words, and holds up whoever has some.
            self._broken(loop.generation, str(error))
            loop.abort(str(error))
            return True

    def _broken(self, generation: int, reason: str) -> None:
        self._context.complain(reason)
        self._channel.send(encode(Broken(generation=generation, reason=reason)))

    def _find(self, assignment: Assignment) -> _Held:
        """The node's own copies of the model and, on node 0, of the draft model, and its share."""
        keep_to(self._cpus)
        folder = self._open(assignment.model, assignment, draft=False)
        draft = None
        if assignment.draft_fingerprint is not None and assignment.rank == 0:
            draft = self._open(assignment.draft, assignment, draft=True)
        prepared = prepare_node(self._context, assignment, folder, draft, self._held_bytes)
        if self._files is not None:
            self._files.serve(folder)
        return _Held(assignment=assignment, folder=folder, draft=draft, prepared=prepared)

    def _open(self, path: str, assignment: Assignment, *, draft: bool) -> Folder:
        """A copy of a model; the one that is open already where it is still the one."""
        fingerprint = assignment.draft_fingerprint if draft else assignment.fingerprint
        assert fingerprint is not None
        if self._held is not None:
            before = self._held.assignment
            same = before.draft_fingerprint if draft else before.fingerprint
            folder = self._held.draft if draft else self._held.folder
            if folder is not None and same == fingerprint:
                return folder
        roots, log = self._context.model_roots, self._context.log
        hub = assignment.draft_hub if draft else assignment.hub
        source = None if self._files is None or draft else self._files.controller
        found = find_model(path, fingerprint, roots, log, hub=hub, source=source)
        log(f"{'drafts with' if draft else 'loads'} {found.path}")
        return self._stack.enter_context(found)


def _alike(before: _Held | None, now: _Held) -> bool:
    """Whether weights that were packed before are those that are wanted now."""
    return (
        before is not None
        and before.folder is now.folder
        and before.assignment.run.weight_format == now.assignment.run.weight_format
    )


def _description(context: NodeContext, held: int) -> Description:
    """Weights of so many bytes are held; they give way to others, or are among them."""
    limits = memory_limits()
    return Description(
        host_id=host_id(),
        memory=tuple(replace(limit, available=limit.available + held) for limit in limits),
        cpus=allowed_cpus(),
        usable_cpus=len(usable_cpus()),
        threads=context.threads or 0,
    )
