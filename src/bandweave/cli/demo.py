"""``bandweave demo``: shows, with the model that comes along, what splitting a model means.

Knows what to tell; the answers, plan and bill come from where every command's do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from bandweave.cli import output
from bandweave.cli.interrupts import interrupts_held
from bandweave.cli.options import engine_options, json_option, split_options

if TYPE_CHECKING:
    from bandweave.cli.questions import Question
    from bandweave.engine.bill import Bill
    from bandweave.engine.options import EngineOptions
    from bandweave.planning.profile.prediction import Prediction
    from bandweave.serving.session import Answer, OnText

_EVERY = 2  # of the nine questions of the file, five
_INTRO = (
    "{model}, woven over {nodes}. Each node holds its own part of every layer in its own memory "
    "and reads only that. For each token they swap small vectors of numbers; weights and KV cache "
    "stay where they are."
)
#: What each bundled model is, and on how many nodes it is shown.
_MODELS = {
    "demo": ("A small language model", 2),
    "demo-moe": (
        "A small language model of experts, of which a token reads two of eight in a layer",
        3,
    ),
}
_WIDTH = 78


@dataclass(frozen=True, kw_only=True)
class _Run:
    """All answers on one split, in the order of the questions."""

    plan: dict[str, Any]
    answers: list[Answer]
    bill: Bill
    predicted: Prediction | None

    @property
    def digest(self) -> str:
        """One digest of all answers' logits."""
        return hashlib.sha256("".join(a.logits_digest for a in self.answers).encode()).hexdigest()

    @property
    def tokens_per_s(self) -> float:
        tokens = sum(answer.timing.decode_tokens for answer in self.answers)
        decode = sum(answer.timing.decode for answer in self.answers)
        return tokens / decode if decode > 0 else 0.0


@click.command(
    "demo", short_help="Split a small model over two nodes, and see that it is the same."
)
@click.option("--model", type=click.Choice(list(_MODELS)), default="demo", show_default=True,
              help="The model: demo-moe is a mixture of experts, on three nodes.")  # fmt: skip
@click.option("--question", "own", multiple=True, metavar="TEXT",
              help="Ask this. May be given several times.")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(1), default=160, metavar="N", show_default=True,
              help="Ends an answer after N tokens.")  # fmt: skip
@split_options
@json_option
def command(model: str, own: Sequence[str], max_tokens: int, as_json: bool, **values: Any) -> None:
    """Splits a small model that comes with bandweave over two nodes or three, asks it questions,
    says what a token cost, and gives the same questions to one node.
    """
    options = engine_options(values, nodes=_MODELS[model][1])
    if any(not text.strip() for text in own):
        raise ValueError("--question is empty; give some text")

    from bandweave.checkpoints.resolve import demo_folder
    from bandweave.cli import questions

    asked = [questions.ask(text) for text in own]
    asked = asked or questions.load_questions(demo_folder(model))[::_EVERY]
    show = _Silent() if as_json else _Show(options, _MODELS[model][0])
    first = _run(model, options, asked, max_tokens, show)
    show.bill(first)
    second = _run(model, _other(options), asked, max_tokens, _Silent())
    same = first.digest == second.digest
    if as_json:
        output.print_json(_json(model, asked, first, second))
    else:
        _compare(first, second)
    if not same:
        raise click.exceptions.Exit(1)


def _run(
    model: str, options: EngineOptions, asked: Sequence[Question], max_tokens: int, show: _Silent
) -> _Run:
    with interrupts_held():
        from bandweave.cli.watch import watch_loading
        from bandweave.engine.bill import make_bill
        from bandweave.engine.holdings import plan_of
        from bandweave.serving.session import open_session
    from bandweave.generation.sampling import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=max_tokens)
    with open_session(model, options, watch_loading) as session:
        engine = session.engine
        plan = plan_of(engine.lineup)
        show.plan(plan)
        before, answers = engine.statistics(), []
        for question in asked:
            tokens = session.encode_chat(question.messages)
            on_text = show.question(question)
            answers.append(session.answer(tokens, params, on_text=on_text, digest=True))
            show.verdict(question, answers[-1])
        timings = [one.timing for one in answers]
        bill = make_bill(engine.split, before, engine.statistics(), timings, logits_for_digest=True)
        predicted = session.predict(timings, logits=True)  # for the digest
    return _Run(plan=plan, answers=answers, bill=bill, predicted=predicted)


def _other(options: EngineOptions) -> EngineOptions:
    """One node of this machine; two, where the question was about one."""
    nodes = 2 if len(options.shares) == 1 else 1
    shares = (Fraction(1),) * nodes
    # No cache: so small a model needs none, and a worker's own means nothing here.
    return dataclasses.replace(
        options,
        shares=shares,
        fit=False,
        stages=1,
        hosts=(),
        secret=None,
        encryption="auto",
        cache=False,
    )


class _Silent:
    """Shows nothing."""

    def plan(self, plan: dict[str, Any]) -> None: ...

    def question(self, question: Question) -> OnText:
        return lambda piece: None

    def verdict(self, question: Question, answer: Answer) -> None: ...

    def bill(self, run: _Run) -> None: ...


class _Show(_Silent):
    """Tells the demo on standard output."""

    def __init__(self, options: EngineOptions, model: str) -> None:
        self._model = model
        machines = "machines" if options.hosts else "processes of this machine"
        nodes = len(options.shares)
        self._nodes = f"{nodes} {machines}" if nodes > 1 else "1 process of this machine"

    def plan(self, plan: dict[str, Any]) -> None:
        from bandweave.cli import report

        print(textwrap.fill(_INTRO.format(model=self._model, nodes=self._nodes), _WIDTH) + "\n")
        report.print_plan(plan)
        print(flush=True)

    def question(self, question: Question) -> Callable[[str], None]:
        print(f"  {question.text}\n  ", end="", flush=True)
        return _write

    def verdict(self, question: Question, answer: Answer) -> None:
        marks = {None: "", True: "  ✓", False: f"  ✗ ({question.expected} would be right)"}
        cut = "  … (cut: the answer reached --max-tokens)" if _is_cut(answer) else ""
        print((cut or marks[_is_right(question, answer)]) + "\n", flush=True)

    def bill(self, run: _Run) -> None:
        from bandweave.cli import report

        predicted = ""
        if run.predicted is not None:
            predicted = f"; {output.rate(run.predicted.decode_tokens_per_s)} were predicted"
        print(f"What a token cost ({output.rate(run.tokens_per_s)} tokens/s{predicted}):\n")
        report.print_bill(run.bill, run.predicted)
        print(flush=True)


def _is_cut(answer: Answer) -> bool:
    return answer.finish_reason == "length"


def _is_right(question: Question, answer: Answer) -> bool | None:
    """None where nobody knows, and for an answer that was cut."""
    return None if _is_cut(answer) else question.is_right(answer.text)


def _write(piece: str) -> None:
    output.write_answer(piece.replace("\n", "\n  "))


def _compare(first: _Run, second: _Run) -> None:
    here = output.count(len(first.plan["nodes"]), "node")
    there = output.count(len(second.plan["nodes"]), "node")
    tokens = sum(len(answer.tokens) for answer in first.answers)
    print(f"The same questions on {there}:\n")
    output.print_pairs(
        [
            (f"logits digest on {here}", first.digest[:32]),
            (f"logits digest on {there}", second.digest[:32]),
        ]
    )
    if first.digest == second.digest:
        print(f"\nSame answer, bit for bit, in all {tokens} tokens.")
    else:
        print("\nNOT the same answer. This must never be; please report it.")


def _json(model: str, asked: Sequence[Question], first: _Run, second: _Run) -> dict[str, Any]:
    from bandweave.cli import report
    from bandweave.serving.prediction import prediction_json

    return {
        **report.versions(),
        "model": model,
        "plan": first.plan,
        "questions": [
            {
                "question": question.text,
                "text": answer.text,
                "expected": question.expected,
                "right": _is_right(question, answer),
                "tokens": list(answer.tokens),
                "finish_reason": answer.finish_reason,
                "logits_digest": answer.logits_digest,
                "timing": report.timing_json(answer.timing),
            }
            for question, answer in zip(asked, first.answers, strict=True)
        ],
        "decode_tokens_per_s": first.tokens_per_s,
        "bill": first.bill.to_json(),
        "predicted": prediction_json(first.predicted),
        "wire_bytes_per_token": first.bill.wire_bytes,
        "digest_wire_bytes_per_token": first.bill.digest_bytes,
        "weight_bytes_per_token": sum(first.bill.weight_bytes),
        "logits_digest": first.digest,
        "compared": {
            "plan": second.plan,
            "decode_tokens_per_s": second.tokens_per_s,
            "logits_digest": second.digest,
        },
        "same_answer": first.digest == second.digest,
    }
