"""``bandweave serve``: answers programs over HTTP. Knows options and signals, no protocols."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bandweave.cli import output
from bandweave.cli.gathering import gathering, reporting
from bandweave.cli.interrupts import interrupts_held
from bandweave.cli.options import (
    cluster_options,
    engine_options,
    json_option,
    lasting_options,
    split_options,
)

if TYPE_CHECKING:
    from bandweave.serving.status.tracing import Tracing

_LIBRARIES = ("starlette", "uvicorn", "prometheus_client")  # that come with the extra
_TRACING = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")  # with another one

_THOUGHTS = {"both": ("reasoning_content", "reasoning")}


@click.command("serve", short_help="Answer programs that speak OpenAI's API or others.")
@click.argument("model")
@click.option("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", show_default=True,
              help="Where to listen; port 0 takes any free one. 0.0.0.0:8080 lets other machines "
                   "ask, and needs --key-file.")  # fmt: skip
@click.option("--key-file", type=click.Path(path_type=Path), metavar="FILE",
              help="Answer only those who send a key of FILE, which has one key per line; a name "
                   "and a weight may follow it.")  # fmt: skip
@click.option("--name", metavar="NAME", help="The model's name for clients. Default: MODEL's.")
@click.option("--any-model", is_flag=True,
              help="Answer whatever model a client names.")  # fmt: skip
@click.option("--private-cache", is_flag=True,
              help="Use what was computed for the prompt of one key for that key alone, so that no "
                   "key can find out how prompts of others begin.")  # fmt: skip
@click.option("--thoughts-as", type=click.Choice(("reasoning_content", "reasoning", "both")),
              default="reasoning_content", show_default=True,
              help="The field of OpenAI's chats in which thoughts are sent.")  # fmt: skip
@click.option("--streams", type=click.IntRange(1, 1 << 12), default=4, metavar="N",
              show_default=True,
              help="Keep room for N answers of a full --context at a time; more fit if they are "
                   "shorter.")  # fmt: skip
@click.option("--queue", type=click.IntRange(0), default=64, metavar="N", show_default=True,
              help="Let N requests wait, and tell others when to come again. 0: any "
                   "number.")  # fmt: skip
@click.option("--queue-tokens", type=click.IntRange(0), metavar="N",
              help="Let requests with N tokens wait. 0: any number. Default: 16 times the "
                   "context.")  # fmt: skip
@click.option("--drain", type=click.FloatRange(0, 86_400), default=0.0, metavar="SECONDS",
              show_default=True,
              help="Let answers go on for that long after Ctrl-C or SIGTERM.")  # fmt: skip
@click.option("--allow-host", multiple=True, metavar="HOST",
              help="Answer to this name of the machine, too, where there are no keys. May be given "
                   "several times.")  # fmt: skip
@click.option("--allow-origin", multiple=True, metavar="ORIGIN",
              help="Let web pages of ORIGIN ask, such as https://chat.example.org; * for any. May "
                   "be given several times.")  # fmt: skip
@click.option("--otlp-traces-endpoint", metavar="URL",
              help="Tell OpenTelemetry's collector at URL, such as http://127.0.0.1:4318, of every "
                   "request: how long it waited, read and wrote, but not what.")  # fmt: skip
@split_options
@cluster_options
@lasting_options
@json_option
def command(
    model: str,
    listen: str,
    key_file: Path | None,
    name: str | None,
    any_model: bool,
    private_cache: bool,
    thoughts_as: str,
    streams: int,
    queue: int,
    queue_tokens: int | None,
    drain: float,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    otlp_traces_endpoint: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Serves MODEL over HTTP until Ctrl-C.

    Programs that speak OpenAI's API are given the address that is printed. The server answers
    /health while it loads, and says there when it is ready.
    """
    if not all(_is_there(name) for name in _LIBRARIES):
        raise ValueError("the server needs libraries of its own: pip install 'bandweave[serve]'")
    options = engine_options(values)
    options = replace(options, run=replace(options.run, streams=streams))
    with interrupts_held():
        from bandweave.cli.serving import Serving, base_url, check_exposure, example
        from bandweave.cluster.cluster import Cluster
        from bandweave.cluster.replicas import Replicas
        from bandweave.mesh.address import bind, parse_address
        from bandweave.serving.answers.admission import Admission
        from bandweave.serving.http.app import make_app
        from bandweave.serving.http.keys import Keys, read_keys
        from bandweave.serving.http.limits import Limits, that_fit
        from bandweave.serving.http.origins import Origins
        from bandweave.serving.http.server import Server
        from bandweave.serving.served_session import serve_session
        from bandweave.serving.session import open_session
        from bandweave.serving.status.machines import machines_of
        from bandweave.serving.status.service import Service

    keys = Keys() if key_file is None else read_keys(key_file, output.say)
    if keys and allow_host:
        raise ValueError("--allow-host is for servers without keys; with --key-file any name does")
    if private_cache and not keys:
        raise ValueError("--private-cache keeps keys apart; give them with --key-file")
    origins = Origins(allow_host, allow_origin)
    tracing = _tracing(otlp_traces_endpoint)
    sock = bind(parse_address(listen, listening=True))
    service, limits = Service(), that_fit(Limits())
    app = make_app(service, keys=keys, origins=origins, limits=limits)
    app.state.status.tracing = tracing
    with tracing or nullcontext(), sock, Server(app, limits) as server:
        check_exposure(sock, listen, bool(keys))
        url = base_url(sock)
        server.start(sock)
        serving = Serving(service, server, drain)
        with (
            gathering(values, f"bandweave serve {model}") as members,
            open_session(model, options, serving.watch, output.say, members) as session,
            reporting(members, session),
        ):
            context = session.engine.context
            served = serve_session(
                session,
                name=name or Path(session.name).name,
                any_name=any_model,
                private_cache=private_cache,
                thought_fields=_THOUGHTS.get(thoughts_as, (thoughts_as,)),
                admission=Admission(
                    most_requests=queue,
                    most_tokens=16 * context if queue_tokens is None else queue_tokens,
                ),
            )

            groups = getattr(session.engine, "groups", (session.engine,))

            def tell() -> None:
                output.say(f"serving {served.name} with a context of {context} tokens; base URL:")
                output.say(f"  {url}")
                output.say("Try it, in another terminal; Ctrl-C here ends the server:")
                chats = served.template is not None
                output.say(f"  {example(url, chats=chats, keys=bool(keys))}")
                if as_json:
                    output.print_json(
                        {"base_url": url, "model": served.name, "context": context,
                         "nodes": sum(len(group.nodes) for group in groups)}
                    )  # fmt: skip

            cluster = session.engine
            assert isinstance(cluster, (Cluster, Replicas))
            app.state.status.show(lambda: machines_of(session), cluster)
            serving.run(session, served, tell)


def _tracing(endpoint: str | None) -> Tracing | None:
    """``ValueError`` where the endpoint is none, or the libraries are missing."""
    if endpoint is None:
        return None
    if not all(_is_there(name) for name in _TRACING):
        raise ValueError("--otlp-traces-endpoint needs libraries of its own: pip install "
                         "'bandweave[traces]'")  # fmt: skip
    from bandweave.serving.status.tracing import Tracing

    return Tracing.to(endpoint)


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False
