"""The process of one node: sets up its channel, lifeline and listener, then serves.

Started by ``engine.spawn``, which hands it sockets by number and sends the settings, the secret
among them, as the first message: nothing secret is on the command line or in the environment.
Knows no models; the function that serves is named by the starter.
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

from bandweave import NUMERICS_VERSION, __version__
from bandweave.engine.context import NodeContext
from bandweave.engine.executor import StepError
from bandweave.engine.lifeline import Lifeline, die_with_parent
from bandweave.mesh.channel import Channel, ChannelClosed
from bandweave.mesh.listener import Listener, mesh_only

Serve = Callable[[NodeContext], None]
SERVE = "bandweave.engine.node:serve"
_SETTINGS_TIMEOUT = 30.0
_ENDING_SECONDS = 1.0  # for threads and native code of a node that has finished
_REPORT_SECONDS = 2.0


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
        ready = {"type": "ready", "pid": os.getpid(), "host": socket.gethostname()}
        versions = {"numerics": NUMERICS_VERSION, "package": __version__}
        context.channel.send({**ready, **versions})
        function(context)
        return 0
    except Exception as error:
        if isinstance(error, ChannelClosed) and context.channel.hung_up():
            return 0  # the controller left without a word, which is a way to end a session
        return _report(context, error)


def _report(context: NodeContext, error: Exception) -> int:
    if is_known(error):
        print(f"{context.name}: {describe(error)}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)
    with contextlib.suppress(OSError):
        mistake = isinstance(error, (ValueError, MemoryError))  # the user's, not the node's
        failed = {"type": "failed", "reason": describe(error), "mistake": mistake}
        context.channel.send(failed, timeout=_REPORT_SECONDS)
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's main function; the exit status."""
    parser = argparse.ArgumentParser(prog="bandweave.engine.process")
    parser.add_argument("--starter-fd", type=int, required=True)
    parser.add_argument("--listener-fd", type=int, required=True)
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--die-with", type=int, metavar="PID")
    parser.add_argument("--serve", default=SERVE)
    options = parser.parse_args(arguments)
    if options.die_with is not None:
        die_with_parent(options.die_with)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter decides what Ctrl-C ends
    faulthandler.enable()  # a crash in native code says where, in the last lines of the output

    lifeline = Lifeline()
    starter = Channel(socket.socket(fileno=options.starter_fd), "the controller")
    lifeline.watch(starter.fileno())
    channel = starter
    if options.control_fd is not None:
        channel = Channel(socket.socket(fileno=options.control_fd), "the controller")
        lifeline.watch(channel.fileno())
    sock = socket.socket(fileno=options.listener_fd)
    try:
        settings, _ = starter.receive(_SETTINGS_TIMEOUT)
    except OSError as error:
        print(f"a node started without its settings: {error}", file=sys.stderr)
        return 1
    # Only a worker's output is read while all is well.
    talks = options.control_fd is not None
    return _serve(options.serve, settings, channel, sock, lifeline, talks)


def _serve(
    serve: str,
    settings: dict[str, Any],
    channel: Channel,
    sock: socket.socket,
    lifeline: Lifeline,
    talks: bool,
) -> int:
    sys.path.extend(path for path in settings["path"] if path not in sys.path)
    name, secret = settings["name"], bytes.fromhex(settings["secret"])

    def log(sentence: str) -> None:
        print(f"{name}: {sentence}", file=sys.stderr, flush=True)

    listener = Listener(
        sock,
        secret,
        session=settings["session"],
        node=settings["node"],
        admit=mesh_only(settings["session"], settings["busy"], channel.hung_up),
        log=log,
    )
    host, port = settings["address"]
    context = NodeContext(
        name=name,
        node=settings["node"],
        session=settings["session"],
        channel=channel,
        secret=secret,
        listener=listener,
        address=(host, port),
        threads=settings["threads"],
        model_roots=tuple(Path(root) for root in settings["model_roots"]),
        cache=settings["cache"],
        isa=settings["isa"],
        log=log if talks else lambda sentence: None,
    )
    status = run_node(serve, context)
    lifeline.finish(status, within=_ENDING_SECONDS)
    # In this order: once the controller sees the end, the address is free for the next session.
    listener.close()
    channel.close()
    return status


if __name__ == "__main__":
    sys.exit(main())
