"""The process of one node: sets up its channel, lifeline and door, then serves.

Started by ``nodes.spawn``, which hands it sockets by number and sends the settings, the secret
among them, as the first message: nothing secret is on the command line or in the environment.
A node of this machine's own command listens at a port until it has met the others; a worker's node
has no port, the worker hands it the others' connections. Knows no models; the function that serves
is named by the starter.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bandweave import NUMERICS_VERSION, __version__, _native
from bandweave.executors.executor import StepError
from bandweave.handshake.handover import Arrivals
from bandweave.handshake.listener import Listener, mesh_only
from bandweave.mesh.channel import Channel, ChannelClosed
from bandweave.mesh.host import host_id
from bandweave.mesh.printable import printable
from bandweave.mesh.sealing import Keys
from bandweave.nodes.context import NodeContext
from bandweave.nodes.lifeline import Lifeline, die_with_parent
from bandweave.nodes.log import Log
from bandweave.nodes.node_handle import LONGEST_REASON

Serve = Callable[[NodeContext], None]
SERVE = "bandweave.engine.node:serve"
_SETTINGS_TIMEOUT = 30.0
_ENDING_SECONDS = 1.0  # for threads and native code of a node that has finished
_REPORT_SECONDS = 2.0
_CONTROLLER = "the controller"


def load_serve(name: str) -> Serve:
    """The function that ``module:function`` names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def describe(error: BaseException) -> str:
    """One sentence for a known kind of error, the traceback's last line for any other."""
    if isinstance(error, MemoryError):
        return str(error) or "it ran out of memory"
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    if isinstance(error, (ValueError, OSError, StepError)) and str(error):
        return str(error)
    return traceback.format_exception_only(error)[-1].strip()


def is_known(error: BaseException) -> bool:
    """Whether an error is one that users meet, as opposed to a mistake in this program."""
    return isinstance(error, (ValueError, OSError, StepError, MemoryError))


def run_node(serve: Serve | str, context: NodeContext) -> int:
    """Says "ready", serves, and reports an error to the controller as "failed"; the exit status."""
    try:
        function = load_serve(serve) if isinstance(serve, str) else serve
        host = {"host": socket.gethostname(), "host_id": host_id()}
        ready = {"type": "ready", "pid": os.getpid(), **host}
        versions = {"numerics": NUMERICS_VERSION, "package": __version__, "aes": _native.has_aes()}
        context.channel.send({**ready, **versions})
        function(context)
        return 0
    except Exception as error:
        if isinstance(error, ChannelClosed) and context.channel.hung_up():
            return 0  # the controller left without a word, which is a way to end a session
        return _report(context, error)


def _report(context: NodeContext, error: Exception) -> int:
    if is_known(error):
        context.complain(describe(error))
    else:
        for line in "".join(traceback.format_exception(error)).splitlines():
            context.complain(line)
    with contextlib.suppress(OSError, ValueError):
        mistake = isinstance(error, (ValueError, MemoryError))  # the user's, not the node's
        reason = printable(describe(error), LONGEST_REASON)
        failed = {"type": "failed", "reason": reason, "mistake": mistake}
        context.channel.send(failed, timeout=_REPORT_SECONDS)
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's main function; the exit status."""
    parser = argparse.ArgumentParser(prog="bandweave.nodes.process")
    parser.add_argument("--starter-fd", type=int, required=True)
    parser.add_argument("--listener-fd", type=int)
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--die-with", type=int, metavar="PID")
    parser.add_argument("--serve", default=SERVE)
    options = parser.parse_args(arguments)
    if options.die_with is not None:
        die_with_parent(options.die_with)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter decides what Ctrl-C ends
    faulthandler.enable()  # a crash in native code says where, in the last lines of the output

    lifeline = Lifeline()
    # A controller that is paused takes nothing for as long as that lasts.
    starter = Channel(socket.socket(fileno=options.starter_fd), _CONTROLLER, send_timeout=None)
    lifeline.watch(starter.fileno())
    channel = starter
    if options.control_fd is not None:
        control = socket.socket(fileno=options.control_fd)
        channel = Channel(control, _CONTROLLER, send_timeout=None)
        lifeline.watch(channel.fileno())
    log = Log("node")
    try:
        settings = starter.receive(_SETTINGS_TIMEOUT)
    except OSError as error:
        log(f"it started without its settings: {error}")
        log.flush()
        return 1
    log = Log(settings["name"])
    if settings["control_keys"]:
        send, receive = map(bytes.fromhex, settings["control_keys"])
        channel.seal(Keys(send=send, receive=receive))
    listening = None
    if options.listener_fd is not None:
        listening = socket.socket(fileno=options.listener_fd)
    return _serve(options.serve, settings, starter, channel, listening, lifeline, log)


def _serve(
    serve: str,
    settings: dict[str, Any],
    starter: Channel,
    channel: Channel,
    listening: socket.socket | None,
    lifeline: Lifeline,
    log: Log,
) -> int:
    sys.path.extend(path for path in settings["path"] if path not in sys.path)
    # Only a worker's output is read while all is well.
    talks = channel is not starter
    host, port = settings["address"]
    door = _door(settings, starter, listening, log if talks else _say_nothing)
    with contextlib.closing(door):
        context = NodeContext(
            name=settings["name"],
            node=settings["node"],
            session=settings["session"],
            channel=channel,
            secret=bytes.fromhex(settings["secret"]),
            listener=door,
            address=(host, port),
            threads=settings["threads"],
            model_roots=tuple(Path(root) for root in settings["model_roots"]),
            cache=settings["cache"],
            isa=settings["isa"],
            encrypted=settings["encrypted"],
            log=log if talks else _say_nothing,
            complain=log,
        )
        status = run_node(serve, context)
        lifeline.finish(status, within=_ENDING_SECONDS)
    # In this order: once the controller sees the end, the address is free for the next session.
    channel.close()
    log.flush()
    return status


def _door(
    settings: dict[str, Any],
    starter: Channel,
    listening: socket.socket | None,
    log: Callable[[str], None],
) -> Listener | Arrivals:
    if listening is None:
        return Arrivals(starter)
    session, node = settings["session"], settings["node"]
    return Listener(
        listening,
        bytes.fromhex(settings["secret"]),
        session=session,
        node=node,
        admit=mesh_only(session, node),
        log=log,
    )


def _say_nothing(sentence: str) -> None: ...


if __name__ == "__main__":
    exit_status = main()
    # Not sys.exit(): a thread that still keeps weights would hold up the end of the interpreter.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(exit_status)
