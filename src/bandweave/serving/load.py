"""``bandweave.load``: opens a model for a Python program, wherever its nodes are to be."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from pathlib import Path

from bandweave.engine.options import EngineOptions
from bandweave.handshake.encryption import ALWAYS, AUTO, NEVER
from bandweave.handshake.secret import read_secret
from bandweave.membership.attendance import attend
from bandweave.membership.known_heads import head_and_secret
from bandweave.run_options import RunOptions
from bandweave.serving.cluster_report import Reporter
from bandweave.serving.gathering import Gathering
from bandweave.serving.model import Model
from bandweave.serving.session import open_session
from bandweave.serving.watcher import Watcher
from bandweave.serving.wish import Wish

_LOG = logging.getLogger("bandweave")


def load(
    model: str | Path,
    *,
    nodes: int | None = None,
    shares: Sequence[int] = (),
    hosts: Sequence[str] = (),
    token_file: str | Path | None = None,
    cluster: str | None = None,
    encrypt: bool | None = None,
    threads: int | None = None,
    format: str = "auto",
    context: int | None = None,
    streams: int = 1,
    cache: bool = True,
    replicas: int = 1,
    spare: int = 0,
    standby_weights: str = "",
    options: EngineOptions | None = None,
) -> Model:
    """Loads a model: a folder, a GGUF file, ``org/name`` of the hub, or ``"demo"``.

    On ``nodes`` processes of this machine (1) in equal ``shares``; on ``hosts`` where `bandweave
    worker` listens, whose secret is in ``token_file``; or on the machines that joined the head at
    ``cluster`` (``"host:port"``; ``""`` is the one that `bandweave up` started here, or that this
    machine joined): on as many of those as pay, or on ``nodes`` of them, which are waited for.
    ``encrypt``: all that crosses to and between machines, or nothing, where the default is all that
    leaves one; ``threads`` a node. ``format`` of the weights, ``context`` tokens of a prompt and
    its answer, with room for ``streams`` of them. ``cache``: whether packed weights may be kept on
    disk. ``replicas``: groups into which the nodes are divided, each of which holds the whole
    model; ``spare`` nodes, the last of the ``hosts``, take the place of those that fail;
    ``standby_weights`` in ``"memory"`` or on ``"disk"``: what nodes would need if another failed.
    ``options`` says all of it in the place of the others; of a cluster, how the model runs and in
    how many stages. Errors are those of the command: ``ValueError``, ``MemoryError``, ``OSError``,
    ``StepError``.
    """
    encryption = AUTO if encrypt is None else ALWAYS if encrypt else NEVER
    wish = None
    if cluster is not None:
        if hosts or (options is not None and options.hosts):
            raise ValueError("hosts names machines, and a cluster has its own; give one of them")
        wish = Wish(
            machines=len(shares) or nodes,
            shares=tuple(map(Fraction, shares)) or None,
            stages=options.stages if options is not None and options.stages > 1 else None,
            replicas=replicas,
            spare=spare,
            encryption=encryption,
        )
        if shares and nodes not in (None, len(shares)):
            raise ValueError(f"{nodes} nodes, but {len(shares)} shares; give one of them")
        if options is not None and (len(options.shares), options.replicas, options.spare) != (
            1, 1, 0,
        ):  # fmt: skip
            raise ValueError(
                "options are of one node where a cluster is given; say nodes, shares, replicas and "
                "spare beside them"
            )
        # What the machines of a cluster are, is known once they have joined.
        nodes, shares, replicas, spare, encryption = 1, (), 1, 0, AUTO
    if options is None:
        from bandweave.weights.cache_folder import default_folder

        spares = tuple(hosts[max(1, len(hosts) - spare) :]) if hosts and spare else ()
        hosts = tuple(hosts[: len(hosts) - len(spares)])
        count = len(shares) or len(hosts) or (1 if nodes is None else nodes)
        options = EngineOptions(
            shares=tuple(map(Fraction, shares)) or (Fraction(1),) * count,
            fit=bool(hosts) and not shares,
            hosts=hosts,
            replicas=replicas,
            spare=spare,
            spare_hosts=spares,
            standby=standby_weights,
            secret=None
            if token_file is None or wish is not None
            else read_secret(Path(token_file)),
            encryption=encryption,
            threads=threads,
            run=RunOptions(weight_format=format, context=context, streams=streams),
            cache=cache,
            cache_folder=default_folder() if cache else "",
        )
    with ExitStack() as stack:
        gathering = None
        if cluster is not None and wish is not None:
            token = None if token_file is None else Path(token_file)
            membership = attend(*head_and_secret(cluster, token), f"bandweave.load {model}")
            gathering = Gathering(stack.enter_context(closing(membership)), wish)
        session = stack.enter_context(
            open_session(str(model), options, _logged, _LOG.warning, gathering)
        )
        if gathering is not None:
            stack.enter_context(Reporter(gathering, session))
        return Model(session, stack.pop_all())
    raise AssertionError


class _Logging(Watcher):
    """What a program's user had better know."""

    def remark(self, sentence: str) -> None:
        _LOG.info(sentence)

    def gathering(self, lack: str) -> None:
        _LOG.warning("waiting for %s", lack)


@contextmanager
def _logged(name: str, nodes: int) -> Iterator[Watcher]:
    yield _Logging()
