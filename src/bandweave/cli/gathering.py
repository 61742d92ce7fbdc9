"""Which cluster a command runs on: a head that is up, or one that the command is itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bandweave.cli import output

if TYPE_CHECKING:
    from bandweave.membership.membership import Membership
    from bandweave.serving.gathering import Gathering
    from bandweave.serving.session import Session


@contextlib.contextmanager
def gathering(values: dict[str, Any], name: str) -> Iterator[Gathering | None]:
    """The cluster that ``--cluster`` or ``--cluster-listen`` ask for; None where neither does.
    ``name``: what the command is, for those who ask the head."""
    where, listen = values["cluster"], values["cluster_listen"]
    if where is None and listen is None:
        yield None
        return
    if where is not None and listen is not None:
        raise ValueError("--cluster is for a head that is up, --cluster-listen is to be one; give "
                         "one of them")  # fmt: skip
    from bandweave.serving.gathering import Gathering

    wish, token_file = _wish(values), values["token_file"]
    if where is not None:
        membership = _attend(where, token_file, name)
    else:
        assert listen is not None
        membership = _open(listen, token_file)
    with contextlib.closing(membership):
        yield Gathering(membership, wish)


@contextlib.contextmanager
def reporting(members: Gathering | None, session: Session) -> Iterator[None]:
    """Tells the cluster's head what goes on, where there is one."""
    if members is None:
        yield
        return
    from bandweave.serving.cluster_report import Reporter

    with Reporter(members, session):
        yield


def _wish(values: dict[str, Any]):  # noqa: ANN202
    from bandweave.cli.options import encryption_of, parse_shares, replica_count
    from bandweave.run_options import MAX_NODES
    from bandweave.serving.wish import Wish

    shares = None if values["shares"] is None else parse_shares(values["shares"])
    machines, spare = values["nodes"], values.get("spare", 0)
    if shares is not None and machines not in (None, len(shares)):
        raise ValueError(
            f"how many machines? --nodes says {machines} and --shares says {len(shares)}; give "
            "one of them"
        )
    machines = machines if shares is None else len(shares)
    if machines is not None and machines + spare > MAX_NODES:
        raise ValueError(
            f"{machines} machines and {spare} spare ones; there may be {MAX_NODES} in all"
        )
    return Wish(
        machines=machines,
        shares=shares,
        stages=values["stages"],
        replicas=replica_count(values.get("replicas", "1")),
        spare=spare,
        encryption=encryption_of(values["encrypt"]),
    )


def _attend(where: str, token_file: Path | None, name: str) -> Membership:
    from bandweave.membership.attendance import attend

    address, secret = head_and_secret(where, token_file)
    return attend(address, secret, name)


def _open(listen: str, token_file: Path | None) -> Membership:
    from bandweave.cli.remarks import remark
    from bandweave.handshake.secret import read_secret
    from bandweave.membership.door import Door

    if token_file is None:
        raise ValueError(
            "--cluster-listen needs --token-file, the secret of those who may join; `bandweave "
            "worker --make-token FILE` writes one"
        )
    door = Door(listen, read_secret(token_file, remark), log=output.say)
    output.say(f"machines join with: bandweave worker --join {door.where} --listen 0.0.0.0:7101 "
               f"--token-file {token_file}")  # fmt: skip
    return door


def head_and_secret(where: str, token_file: Path | None) -> tuple[str, bytes]:
    """See ``membership.known_heads``; says what is odd about the token's file."""
    from bandweave.cli.remarks import remark
    from bandweave.membership import known_heads

    return known_heads.head_and_secret(where, token_file, remark)
