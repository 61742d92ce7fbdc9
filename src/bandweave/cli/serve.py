"""``bandweave serve``: answers programs over HTTP. Knows options and sockets, no protocols."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bandweave.cli import output
from bandweave.cli.interrupts import interrupts_held
from bandweave.cli.options import engine_options, split_options


@click.command("serve", short_help="Answer programs that speak OpenAI's API or others.")
@click.argument("model")
@click.option("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", show_default=True,
              help="Where to listen.")  # fmt: skip
@click.option("--name", metavar="NAME", help="The model's name for clients. Default: MODEL's.")
@click.option("--any-model", is_flag=True,
              help="Answer whatever model a client names.")  # fmt: skip
@click.option("--streams", type=click.IntRange(1, 1 << 12), default=4, metavar="N",
              show_default=True,
              help="Keep room for N answers of a full --context at a time; shorter ones may be "
                   "more.")  # fmt: skip
@split_options
def command(
    model: str,
    listen: str,
    name: str | None,
    any_model: bool,
    streams: int,
    **values: Any,
) -> None:
    """Serves MODEL until Ctrl-C."""
    options = engine_options(values)
    options = replace(options, run=replace(options.run, streams=streams))
    with interrupts_held():
        from bandweave.cli.watch import watch_loading
        from bandweave.mesh.address import bind, format_address, parse_address
        from bandweave.serving.answers.admission import Admission
        from bandweave.serving.http.app import make_app
        from bandweave.serving.http.server import Server
        from bandweave.serving.served_session import serve_session
        from bandweave.serving.session import open_session
        from bandweave.serving.status.machines import machines_of

    with (
        bind(parse_address(listen, listening=True)) as sock,
        open_session(model, options, watch_loading) as session,
    ):
        served = serve_session(
            session,
            name=name or Path(session.name).name,
            any_name=any_model,
            admission=Admission(),
        )
        output.say(f"serving {served.name} at http://{format_address(sock.getsockname()[:2])}")
        app = make_app(served)
        app.state.status.show(machines_of(session))
        Server(app).serve_on(sock)
