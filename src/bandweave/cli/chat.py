"""``bandweave chat``: a conversation in the terminal. Knows its commands and its interrupts."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from bandweave.cli import output
from bandweave.cli.conversation import Conversation
from bandweave.cli.gathering import gathering, reporting
from bandweave.cli.interrupts import interrupts_held
from bandweave.cli.line_input import LineInput
from bandweave.cli.options import cluster_options, engine_options, split_options
from bandweave.cli.sampling import sampling_options, sampling_params
from bandweave.environment import read_environment
from bandweave.shown import printable

if TYPE_CHECKING:
    from bandweave.generation.sampling import SamplingParams
    from bandweave.serving.engine_start import AnyEngine
    from bandweave.serving.session import Session

_HELP = """\
/reset          forget the conversation
/system TEXT    set the system message and forget the conversation
/exit, Ctrl-D   leave
/help           this
A line that ends in \\ goes on in the next one. Ctrl-C stops an answer."""


@click.command("chat", short_help="Talk with a model.")
@click.argument("model")
@click.option("--system", metavar="TEXT", help="The system message.")
@sampling_options
@split_options
@cluster_options
@click.option("--verbose", is_flag=True, help="Show tokens per second after every answer.")
def command(model: str, system: str | None, verbose: bool, **values: Any) -> None:
    """Talks with MODEL.

    Type /help for what else there is. Questions may be piped in, one per line.
    """
    params, options = sampling_params(values), engine_options(values)

    with interrupts_held():
        from bandweave.cli.watch import watch_loading
        from bandweave.serving.session import open_session

    state = read_environment().state
    with (
        gathering(values, f"bandweave chat {model}") as members,
        open_session(model, options, watch_loading, output.remark, members) as session,
        reporting(members, session),
    ):
        session.encode_chat([{"role": "user", "content": "?"}])  # can it chat at all?
        with LineInput(None if state is None else state / "chat_history") as lines:
            if lines.interactive:
                nodes = output.count(len(session.engine.nodes), "node")
                output.say(f"{printable(model)} on {nodes}; /help for help, Ctrl-D to leave")
            if options.run.wire != "exact" and len(session.engine.nodes) > 1:
                output.say(f"(not the exact answers: activations cross as {options.run.wire})")
            _Chat(session, params, Conversation(system=system), lines, verbose).run()


class _Chat:
    def __init__(
        self,
        session: Session,
        params: SamplingParams,
        conversation: Conversation,
        lines: LineInput,
        verbose: bool,
    ) -> None:
        self._session, self._params, self._lines = session, params, lines
        self._conversation, self._verbose = conversation, verbose

    def run(self) -> None:
        """Reads and answers to the end of the input."""
        while (text := self._lines.read()) is not None:
            text = text.strip()
            if text in ("/exit", "/quit"):
                return
            if text.startswith("/"):
                self._obey(text)
            elif text:
                self._answer(text)

    def _obey(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if name == "/help":
            output.say(_HELP)
        elif name == "/reset":
            self._conversation.reset()
            output.say("(forgotten)")
        elif name == "/system":
            self._conversation.system = rest.strip() or None
            self._conversation.reset()
            output.say("(set)" if rest.strip() else "(no system message)")
        else:
            output.say(f"{name} is no command; /help lists them")

    def _answer(self, text: str) -> None:
        from bandweave.cli.watch import watch_reading

        conversation, session = self._conversation, self._session
        conversation.ask(text)
        try:
            with _interruptible(session.engine) as interrupted:
                tokens, dropped = conversation.fit(session.encode_chat, self._room())
                if dropped:
                    turns = output.count(dropped, "turn")
                    output.say(f"(the context is full: forgot the oldest {turns})")
                with watch_reading(len(tokens)) as on_read:
                    answer = session.answer(
                        tokens,
                        self._params,
                        on_text=output.write_answer,
                        on_read=on_read,
                        cancelled=interrupted.is_set,
                    )
        except ValueError as error:  # of this question alone
            conversation.take_back()
            if not self._lines.interactive:
                raise
            output.say(str(error))
            return
        conversation.answer(answer.text)
        output.write_answer("" if answer.text.endswith("\n") else "\n")
        if answer.finish_reason == "cancelled":
            output.say("(stopped)")
        elif answer.finish_reason == "length":
            output.say("(cut: the answer reached --max-tokens or the end of --context)")
        if self._verbose:
            from bandweave.cli import report

            timing = answer.timing
            rate = predicted = ""
            if timing.decode_tokens:
                rate = f", {output.rate(timing.decode_tokens_per_s)} tokens/s"
                found = session.predict([timing], logits=self._params.temperature > 0)
                if found is not None:
                    predicted = f" ({output.rate(found.decode_tokens_per_s)} predicted)"
            drafts = report.drafts_text([timing])
            output.say(
                f"[{output.count(len(answer.tokens), 'token')}{rate}{predicted}; prompt "
                f"{answer.prompt_tokens}, of which {timing.reused_tokens} were known]"
            )
            if drafts:
                output.say(f"[{drafts}]")

    def _room(self) -> int:
        """Tokens that a prompt may have, so that there is room to answer."""
        context = self._session.engine.context
        wanted = self._params.max_tokens or context
        return context - min(wanted, context // 4)


@contextlib.contextmanager
def _interruptible(engine: AnyEngine) -> Iterator[threading.Event]:
    """Makes the first Ctrl-C end the answers under way and set the event; a second one, where the
    nodes do not listen, ends the command."""
    interrupted = threading.Event()

    def on_interrupt(number: int, frame: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        # Not here: the interrupted code may be in the midst of sending.
        threading.Thread(target=engine.cancel, daemon=True).start()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
