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

    token_file = values["token_file"]
    if where is not None:
        membership = _attend(where, token_file, name)
    else:
        assert listen is not None
        membership = _open(listen, token_file)
    with contextlib.closing(membership):
        yield Gathering(membership, _wish(values))


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
    from bandweave.cli.options import parse_shares
    from bandweave.serving.gathering import Wish

    shares = None if values["shares"] is None else parse_shares(values["shares"])
    machines = values["nodes"]
    if shares is not None and machines not in (None, len(shares)):
        raise ValueError(
            f"how many machines? --nodes says {machines} and --shares says {len(shares)}; give "
            "one of them"
        )
    return Wish(
        machines=machines if shares is None else len(shares),
        shares=shares,
        stages=values["stages"],
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
    """The head at ``where``, or the one that is up on this machine where that is empty; and its
    secret. ``ValueError`` where there is none, or no secret is known."""
    from bandweave.cli.remarks import remark
    from bandweave.handshake.secret import read_secret
    from bandweave.membership.records import cluster_folder, find_record

    records = cluster_folder()
    head = find_record(records, "head")
    joined = find_record(records, "worker")
    address = where
    if not address:
        if head is None and joined is None:
            raise ValueError(
                "no cluster is up on this machine, and this machine has joined none: `bandweave "
                "up` starts one, `bandweave join` joins one, and --cluster HOST:PORT names its head"
            )
        address = head.address if head is not None else joined.head if joined is not None else ""
    if token_file is not None:
        return address, read_secret(token_file, remark)
    for record in (head, joined):
        if record is not None and address in (record.address, record.head):
            return address, read_secret(record.token_file)
    raise ValueError(
        f"the head at {address} has a secret, which this machine does not know: give --token-file"
    )
