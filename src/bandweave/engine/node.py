"""The node: loads its share of a model, joins the mesh, runs steps until its controller ends.

Messages from the controller: ``describe`` if it likes, ``load`` (or a probe's, see
``probing``), ``join``; then those of ``NodeLoop``. Knows no text and no command line.
"""

from __future__ import annotations

from contextlib import ExitStack

from bandweave.checkpoints.folder import Folder
from bandweave.engine.assignment import Assignment
from bandweave.engine.loaded_node import LoadedNode, load_node, prepare_node
from bandweave.engine.model_search import find_model
from bandweave.engine.node_loop import NodeLoop
from bandweave.executors.executor import StepError
from bandweave.host.machine import (
    allowed_cpus,
    memory_limits,
    usable_cpus,
)
from bandweave.mesh.channel import ChannelClosed
from bandweave.mesh.host import host_id
from bandweave.messages import (
    Describe,
    Description,
    Found,
    Join,
    decode,
    encode,
)
from bandweave.nodes.context import NodeContext
from bandweave.nodes.heartbeat import LoadingPulse


def serve(context: NodeContext) -> None:
    """Runs a node to the end of its session; see ``nodes.process``."""
    message = context.channel.receive()
    if message.get("type") == Describe.TYPE:
        context.channel.send(encode(_description(context)))
        message = context.channel.receive()
    if message.get("type") == "shutdown":
        return
    if message.get("type") != Assignment.TYPE:
        # Nodes that run a model start sooner without it.
        from bandweave.probing.node import PROBES, serve_probe

        if message.get("type") in PROBES:
            serve_probe(context, message)
            return
    assignment = decode(Assignment, message)
    with ExitStack() as stack:
        node = _load(context, assignment, stack)
        if node is None:
            return
        loop = NodeLoop(context, assignment, node)
        try:
            loop.run()
        except ChannelClosed:
            loop.leave()
        except StepError as error:
            loop.abort(str(error))
            raise


def _description(context: NodeContext) -> Description:
    return Description(
        host_id=host_id(),
        memory=memory_limits(),
        cpus=allowed_cpus(),
        usable_cpus=len(usable_cpus()),
        threads=context.threads or 0,
    )


def _load(context: NodeContext, assignment: Assignment, stack: ExitStack) -> LoadedNode | None:
    """Finds the model, waits for the others to have found theirs, and loads; None where the
    controller has had enough meanwhile."""
    with LoadingPulse(context.channel) as pulse:
        folder, draft = _open(context, assignment, stack)
        prepared = prepare_node(context, assignment, folder, draft)
        fingerprint = folder.layout_fingerprint()
        same_files = assignment.host_id == host_id() != "" and folder.file_keys <= set(
            assignment.own_files
        )
        found = Found(path=str(folder.path), headers=fingerprint.headers, same_files=same_files)
        context.channel.send(encode(found))
        message = context.channel.receive()
        if message.get("type") == "shutdown":
            return None
        decode(Join, message)
        node = load_node(context, assignment, prepared, folder, draft, pulse.update)
    for report in node.checks.messages():
        context.channel.send(encode(report))
    return node


def _open(
    context: NodeContext, assignment: Assignment, stack: ExitStack
) -> tuple[Folder, Folder | None]:
    """The node's own copies of the model and, on node 0, of the draft model."""
    roots = context.model_roots
    path = find_model(assignment.model, assignment.fingerprint, roots, context.log)
    context.log(f"loads {path}")
    folder = stack.enter_context(Folder.open(path))
    if assignment.draft_fingerprint is None or context.node != 0:
        return folder, None
    path = find_model(assignment.draft, assignment.draft_fingerprint, roots, context.log)
    context.log(f"drafts with {path}")
    return folder, stack.enter_context(Folder.open(path))
