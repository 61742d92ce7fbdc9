"""``bandweave run``: answers one prompt. Knows where a prompt comes from and where text goes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bandweave.cli import output
from bandweave.cli.gathering import gathering, reporting
from bandweave.cli.interrupts import interrupts_held
from bandweave.cli.options import cluster_options, engine_options, json_option, split_options
from bandweave.cli.remarks import remark
from bandweave.cli.sampling import sampling_options, sampling_params
from bandweave.shown import printable

if TYPE_CHECKING:
    from bandweave.engine.bill import Bill
    from bandweave.planning.profile.prediction import Prediction
    from bandweave.serving.session import Answer, AnswerLost, Session

_MAX_PROMPT_BYTES = 64_000_000


@click.command("run", short_help="Answer one prompt.")
@click.argument("model")
@click.option("--prompt", metavar="TEXT", help="What to answer. Default: standard input.")
@click.option("--prompt-file", type=click.Path(path_type=Path), metavar="FILE",
              help="A UTF-8 file with the prompt.")  # fmt: skip
@click.option("--chat/--raw", "chat", default=None,
              help="As a question in a chat, or as text to go on with. Default: a chat if the "
                   "model has a chat template.")  # fmt: skip
@click.option("--system", metavar="TEXT", help="The system message of the chat.")
@sampling_options
@split_options
@cluster_options
@click.option("--verbose", is_flag=True, help="Show the plan before and the bill after.")
@json_option
def command(
    model: str,
    prompt: str | None,
    prompt_file: Path | None,
    chat: bool | None,
    system: str | None,
    verbose: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Answers one prompt with MODEL.

    The answer goes to standard output as it comes, everything else to standard error.
    """
    text = _prompt(prompt, prompt_file)
    if system is not None and chat is False:
        raise click.UsageError("--system is a part of a chat; leave out --raw")
    params, options = sampling_params(values), engine_options(values)

    with interrupts_held():
        from bandweave.cli import report
        from bandweave.cli.watch import watch_loading, watch_reading
        from bandweave.engine.holdings import plan_of
        from bandweave.executors.executor import StepError
        from bandweave.serving.session import AnswerLost, open_session

    with (
        gathering(values, f"bandweave run {model}") as members,
        open_session(model, options, watch_loading, output.remark, members) as session,
        reporting(members, session),
    ):
        engine = session.engine
        plan = plan_of(engine.lineup)
        if chat is None:
            chat = session.template is not None or system is not None
        tokens = _tokens(session, text, chat, system)
        if verbose:
            report.print_plan(plan, stderr=True)
            output.print_text(report.start_text(session.start_seconds), stderr=True)
            output.say()
        before = session.look()
        try:
            with watch_reading(len(tokens), shown=not as_json) as on_read:
                answer = session.answer(
                    tokens,
                    params,
                    on_text=(lambda piece: None) if as_json else output.write_answer,
                    on_read=on_read,
                    digest=as_json,
                    goes_on=not chat,
                )
        except AnswerLost as lost:
            if as_json:
                raise output.JsonFailure(_lost_json(session, tokens, lost, plan)) from lost
            output.write_answer("\n" if lost.text else "")
            raise
        logits = as_json and params.needs_best_only
        bill = session.bill(before, [answer.timing], logits=logits)
        plan = plan_of(engine.lineup)  # others may have gone on with it
        predicted = None
        if answer.timing.decode_tokens:
            predicted = session.predict([answer.timing], logits=as_json or params.temperature > 0)
        if answer.finish_reason == "error" and as_json:
            found = _json(session, tokens, answer, plan, bill, predicted)
            raise output.JsonFailure(found) from StepError(answer.error)
        if as_json:
            output.print_json(_json(session, tokens, answer, plan, bill, predicted))
            return
        output.write_answer("" if answer.text.endswith("\n") else "\n")
        _summarise(session, answer, predicted)
        if bill is not None:
            _remark_slowness(bill, predicted)
        if not plan["exact"]:
            output.say(f"(not the exact answer: activations crossed as {plan['wire']})")
        if verbose and answer.timing.decode_tokens and bill is not None:
            output.say()
            report.print_bill(bill, predicted, stderr=True)
        if answer.finish_reason == "error":
            raise StepError(f"the answer ended early: {answer.error}")


def _prompt(prompt: str | None, file: Path | None) -> str:
    if prompt is not None and file is not None:
        raise click.UsageError("--prompt and --prompt-file are both given; choose one")
    if prompt is not None:
        return prompt
    if file is not None and str(file) != "-":
        try:
            with file.open("rb") as opened:
                content = opened.read(_MAX_PROMPT_BYTES + 1)
        except OSError as error:
            raise ValueError(f"--prompt-file {printable(file)}: {error.strerror}") from error
        where = f"--prompt-file {printable(file)}"
    else:
        if sys.stdin.isatty():
            raise click.UsageError("no prompt; give --prompt TEXT, or pipe text in")
        content, where = sys.stdin.buffer.read(_MAX_PROMPT_BYTES + 1), "standard input"
    if len(content) > _MAX_PROMPT_BYTES:
        raise ValueError(f"{where} has more than {_MAX_PROMPT_BYTES} bytes; that is no prompt")
    try:
        return content.decode("utf-8").removesuffix("\n")  # which editors and `echo` add
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text: byte {error.start} is wrong") from error


def _tokens(session: Session, text: str, chat: bool, system: str | None) -> list[int]:
    if not text.strip() and (chat or session.template):
        raise ValueError("the prompt is empty; give some text, by --prompt or on standard input")
    if not chat:
        return session.tokenizer.encode(text)
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return session.encode_chat(messages)


def _summarise(session: Session, answer: Answer, predicted: Prediction | None) -> None:
    timing = answer.timing
    from bandweave.cli import report

    nodes = output.count(len(session.engine.nodes), "node")
    # One token comes with the prompt: it has no rate of its own.
    rate = f", {output.rate(timing.decode_tokens_per_s)} tokens/s" if timing.decode_tokens else ""
    prefill = ""
    if predicted is not None:
        if rate:
            rate += f" ({output.rate(predicted.decode_tokens_per_s)} predicted)"
        prefill = f" ({output.rate(predicted.prefill_tokens_per_s)} predicted)"
    drafts = report.drafts_text([timing])
    output.say(
        f"[{output.count(len(answer.tokens), 'token')}{rate} on {nodes}; prompt "
        f"{answer.prompt_tokens}, {output.rate(timing.prefill_tokens_per_s)} tokens/s{prefill}]"
    )
    if drafts:
        output.say(f"[{drafts}]")
    if answer.finish_reason == "length":
        full = len(answer.tokens) + answer.prompt_tokens >= session.engine.context
        output.say(f"(cut: the answer reached {'--context' if full else '--max-tokens'})")


def _remark_slowness(bill: Bill, predicted: Prediction | None) -> None:
    """One remark where a token took more than twice what was predicted."""
    if predicted is None:
        return
    from bandweave.planning.profile.slowness import slowness_sentence

    if sentence := slowness_sentence(bill.names, bill.seconds, predicted.decode):
        remark(sentence)


def _lost_json(
    session: Session, tokens: list[int], lost: AnswerLost, plan: dict[str, Any]
) -> dict[str, Any]:
    """What there is of an answer whose nodes failed."""
    from bandweave.cli import report

    return {
        "text": lost.text,
        "tokens": list(lost.tokens),
        "finish_reason": "error",
        "error": str(lost),
        "prompt_tokens": len(tokens),
        "prompt_token_ids": tokens,
        **report.versions(),
        "model": session.name,
        "plan": plan,
    }


def _json(
    session: Session,
    tokens: list[int],
    answer: Answer,
    plan: dict[str, Any],
    bill: Bill | None,
    predicted: Prediction | None,
) -> dict[str, Any]:
    from bandweave.cli import report
    from bandweave.serving.prediction import prediction_json
    from bandweave.serving.status.recoveries import recoveries_json

    return {
        "text": answer.text,
        "tokens": list(answer.tokens),
        "finish_reason": answer.finish_reason,
        "error": answer.error or None,
        "prompt_tokens": answer.prompt_tokens,
        "prompt_token_ids": tokens,
        "logits_digest": answer.logits_digest,
        **report.versions(),
        "model": session.name,
        "plan": plan,
        "timing": report.timing_json(answer.timing, session.load_seconds),
        "start_seconds": dict(session.start_seconds),
        # None where nodes failed in the midst of the answer: what they counted is lost with them.
        "bill": None if bill is None else bill.to_json(),
        "predicted": prediction_json(predicted),
        "wire_bytes_per_token": None if bill is None else bill.wire_bytes,
        "digest_wire_bytes_per_token": None if bill is None else bill.digest_bytes,
        "weight_bytes_per_token": None if bill is None else sum(bill.weight_bytes),
        "peak_rss_bytes": [] if bill is None else list(bill.peak_rss_bytes),
        "recoveries": recoveries_json(session.engine),
    }
