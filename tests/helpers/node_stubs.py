"""A stand-in for the node's serve function: does what messages tell it, mostly misbehave."""

from __future__ import annotations

import hashlib
import math
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

from bandweave.handshake.rendezvous import connect_mesh
from bandweave.mesh.shared import share_memory
from bandweave.mesh.stream import Stream
from bandweave.messages import LinkEncryption
from bandweave.nodes.context import NodeContext


def serve(context: NodeContext) -> None:
    """Obeys messages until "shutdown" or the end of the channel."""
    while True:
        message = context.channel.receive()
        kind = message["type"]
        if kind == "shutdown":
            return
        if kind == "echo":
            context.channel.send({"type": "echo", "text": message["text"]})
        elif kind == "describe":
            context.channel.send(_describe(context))
        elif kind == "mesh":
            _meet(context, message)
        elif kind == "raise":
            raise {"value": ValueError, "memory": MemoryError, "key": KeyError}[message["error"]](
                *message["args"]
            )
        elif kind == "native":
            context.channel.send({"type": "begun"})
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 500_000_000)  # minutes, without the GIL
        elif kind == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            context.channel.send({"type": "begun"})
            time.sleep(600)
        elif kind == "stop":  # as a debugger, or the system, may do
            context.channel.send({"type": "begun"})
            os.kill(os.getpid(), signal.SIGSTOP)
        elif kind == "hold":  # the interpreter's lock, in C
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            context.channel.send({"type": "begun"})
            re.match("(a+)+$", "a" * 60 + "b")
        elif kind == "read":
            context.channel.send({"type": "begun"})
            Path(message["path"]).read_bytes()
        elif kind == "talk":
            for number in range(message["count"]):
                context.channel.offer({"type": "alive", "tokens": number})
                context.channel.send({"type": "tokens", "number": number, "fill": "x" * 1000})
            context.channel.send({"type": "done"})
        elif kind == "linger":  # serves no more, but a thread keeps the process from ending
            threading.Thread(target=time.sleep, args=(600,)).start()
            return
        elif kind == "crash":
            print("about to crash", flush=True)
            os.abort()


def _describe(context: NodeContext) -> dict[str, Any]:
    return {
        "type": "describe",
        "pid": os.getpid(),
        "name": context.name,
        "node": context.node,
        "session": context.session,
        "address": context.address,
        "threads": context.threads,
        "roots": [str(root) for root in context.model_roots],
        "cache": context.cache,
        "group": context.in_process_group is not None,
    }


def _meet(context: NodeContext, message: dict[str, Any]) -> None:
    """Connects the mesh, sends this node's id over every socket and reports what came."""
    addresses = {n: (host, port) for n, (host, port) in enumerate(message["addresses"])}
    assert context.listener is not None
    links = connect_mesh(
        context.node,
        addresses,
        context.listener,
        context.secret,
        context.session,
        message.get("seconds", 10.0),
        meeting=LinkEncryption(**message.get("links", {})).meeting(1),
        patience=math.inf,
    )
    sockets = {node: link.socket for node, link in links.items()}
    keys = {node: link.keys and link.keys.derive("memory") for node, link in links.items()}
    memory = share_memory(context.node, sockets, 1 << 16, 10.0, keys=keys)
    context.listener.finish()
    streams = {node: Stream(link.socket, link.keys) for node, link in links.items()}
    for stream in streams.values():
        stream.send(bytes([context.node]))
    heard = {str(node): stream.receive(1)[0] for node, stream in streams.items()}
    for stream in streams.values():
        stream.close()
    for descriptor in memory.values():
        os.close(descriptor)
    sealed = sorted(node for node, link in links.items() if link.keys is not None)
    met = {"type": "met", "heard": heard, "sharing": sorted(memory), "sealed": sealed}
    context.channel.send(met)
