"""``bandweave bench``: how fast a model decodes and prefills here, and what bounds it.

Random prompt tokens, greedy, no end token, nothing reused: the work is the same in every round.
Knows no text.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bandweave.cli import output
from bandweave.cli.interrupts import interrupts_held
from bandweave.cli.options import engine_options, json_option, split_options
from bandweave.formats.names import STORED

if TYPE_CHECKING:
    from bandweave.checkpoints.folder import Folder
    from bandweave.engine.asking import Asking
    from bandweave.engine.bill import Bill
    from bandweave.engine.options import EngineOptions
    from bandweave.generation.request import Timing
    from bandweave.planning.profile.prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """``bandwidth``: bytes per second that the same threads read, None for other machines."""

    plan: dict[str, Any]
    timings: list[Timing]
    bill: Bill
    bandwidth: float | None
    predicted: Prediction | None

    @property
    def decode(self) -> list[float]:
        return [timing.decode_tokens_per_s for timing in self.timings]

    @property
    def prefill(self) -> list[float]:
        return [timing.prefill_tokens_per_s for timing in self.timings]

    @property
    def weight_rate(self) -> float:
        """Bytes of weights read per second while decoding."""
        return sum(self.bill.weight_bytes) * statistics.median(self.decode)

    @property
    def utilisation(self) -> float | None:
        return None if self.bandwidth is None else self.weight_rate / self.bandwidth


@click.command("bench", short_help="Measure a model's speed, and what bounds it.")
@click.argument("model")
@click.option("--prompt-tokens", type=click.IntRange(1), default=128, metavar="P",
              show_default=True, help="Tokens of the prompt.")  # fmt: skip
@click.option("--new-tokens", type=click.IntRange(2), default=64, metavar="K",
              show_default=True, help="Tokens of the answer.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=3, metavar="R", show_default=True,
              help="Rounds after one to warm up; the median counts.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, metavar="N", show_default=True,
              help="The seed of the prompt.")  # fmt: skip
@split_options
@json_option
def command(
    model: str,
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
    seed: int,
    as_json: bool,
    **values: Any,
) -> None:
    """Measures MODEL here: tokens per second, bytes read and sent for each, and where the time
    goes.
    """
    options = engine_options(values)

    with interrupts_held():
        from bandweave.checkpoints.folder import Folder
        from bandweave.engine.placement import settle_format
        from bandweave.hub.resolve import resolve_model

    with Folder.open(resolve_model(model), weights=not options.hosts) as folder:
        options = settle_format(folder, options)
        options = _fitting(folder, options, prompt_tokens, new_tokens)
        measured = _measure(model, folder, options, prompt_tokens, new_tokens, rounds, seed)
    if as_json:
        asked = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "rounds": rounds}
        output.print_json(_json(model, asked, measured))
    else:
        _print(model, prompt_tokens, new_tokens, measured)


def _fitting(
    folder: Folder, options: EngineOptions, prompt_tokens: int, new_tokens: int
) -> EngineOptions:
    """With a context that holds exactly the tokens asked for, unless the user chose one."""
    needed, longest = prompt_tokens + new_tokens, folder.spec.run_length
    context = options.run.context or needed
    if needed > min(context, longest):
        raise ValueError(
            f"{prompt_tokens} prompt tokens and {new_tokens} new ones are more than the context "
            f"of {min(context, longest)} tokens holds; ask for fewer"
        )
    return dataclasses.replace(options, run=dataclasses.replace(options.run, context=context))


def _measure(
    name: str,
    folder: Folder,
    options: EngineOptions,
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
    seed: int,
) -> _Measured:
    with interrupts_held():
        from bandweave.cli.bandwidth import read_bandwidth
        from bandweave.cli.watch import watch_loading
        from bandweave.engine.bill import make_bill
        from bandweave.engine.holdings import plan_of
        from bandweave.serving.engine_start import start_engine
        from bandweave.serving.prediction import (
            find_predictor,
            predict_answers,
            quick_profile,
            stored_profile,
        )
    from bandweave.engine.placement import local_threads
    from bandweave.generation.request import Request
    from bandweave.generation.sampling import SamplingParams

    bandwidth = None
    predictor = find_predictor(stored_profile(), options)
    if not options.hosts:  # before the nodes take memory and processors
        with output.status("measuring how fast the memory is read"):
            bandwidth = read_bandwidth([local_threads(options) * len(options.shares)])[0]
        if options.run.weight_format != STORED:  # formats are measured one by one
            predictor = predictor or find_predictor(quick_profile(options), options)
    generator = random.Random(seed)
    request = Request(
        tokens=tuple(generator.randrange(folder.spec.vocab_size) for _ in range(prompt_tokens)),
        params=SamplingParams(temperature=0, max_tokens=new_tokens),
    )
    with start_engine(name, folder, options, watch_loading) as engine:
        with output.status("warming up"):
            _answer(engine, request)
        before = engine.statistics()
        timings = []
        for number in range(1, rounds + 1):
            with output.status(f"round {number} of {rounds}"):
                timings.append(_answer(engine, request))
        return _Measured(
            plan=plan_of(engine.lineup),
            timings=timings,
            bill=make_bill(engine.split, before, engine.statistics(), timings),
            bandwidth=bandwidth,
            predicted=predict_answers(predictor, folder, engine.lineup, timings),
        )


def _answer(engine: Asking, request: Any) -> Timing:
    return engine.generate([request], reuse=False)[0].timing


def _json(model: str, asked: dict[str, int], measured: _Measured) -> dict[str, Any]:
    from bandweave.cli import report

    bill, bandwidth = measured.bill, measured.bandwidth
    return {
        **report.versions(),
        "model": model,
        **asked,
        "decode_tokens_per_s": statistics.median(measured.decode),
        "prefill_tokens_per_s": statistics.median(measured.prefill),
        "decode_rounds": measured.decode,
        "prefill_rounds": measured.prefill,
        "drafted_tokens": sum(timing.drafted_tokens for timing in measured.timings),
        "accepted_tokens": sum(timing.accepted_tokens for timing in measured.timings),
        "weight_bytes_per_token": sum(bill.weight_bytes),
        "weight_bytes_per_token_by_node": bill.weight_bytes,
        "wire_bytes_per_token": bill.wire_bytes,
        "read_bandwidth_gb_s": None if bandwidth is None else bandwidth / 1e9,
        "bandwidth_utilisation": measured.utilisation,
        "predicted": _predicted(measured),
        "exchanges_per_token": bill.exchanges,
        "barriers_per_token": bill.barriers,
        **report.per_layer(bill, measured.plan),
        "bill": bill.to_json(),
        "peak_rss_bytes": bill.peak_rss_bytes,
        "plan": measured.plan,
    }


def _predicted(measured: _Measured) -> dict[str, Any] | None:
    """The measurement's fields, as predicted."""
    from bandweave.serving.prediction import prediction_json

    expected = prediction_json(measured.predicted)
    if expected is None or measured.predicted is None:
        return None
    read = measured.predicted.read_bytes_per_s
    rate = expected["weight_bytes_per_token"] * expected["decode_tokens_per_s"]
    return {
        **expected,
        "read_bandwidth_gb_s": None if read is None else read / 1e9,
        "bandwidth_utilisation": None if read is None else rate / read,
    }


def _print(model: str, prompt_tokens: int, new_tokens: int, measured: _Measured) -> None:
    from bandweave.cli import report

    bill, plan = measured.bill, measured.plan
    nodes = output.count(len(plan["nodes"]), "node")
    drafts = report.drafts_text(measured.timings)
    reads = f"{output.size(sum(bill.weight_bytes))} a token, {measured.weight_rate / 1e9:.3g} GB/s"
    if measured.bandwidth is not None:
        threads = output.count(sum(node["threads"] for node in plan["nodes"]), "thread")
        reads += (
            f" of the {measured.bandwidth / 1e9:.3g} GB/s that {threads} can read: "
            f"{100 * (measured.utilisation or 0.0):.0f}%"
        )
    expected = measured.predicted
    decode = None if expected is None else expected.decode_tokens_per_s
    prefill = None if expected is None else expected.prefill_tokens_per_s
    print(f"{model} on {nodes}, {prompt_tokens} prompt tokens and {new_tokens} new ones\n")
    output.print_pairs(
        [
            ("decode", _rates(measured.decode, decode)),
            ("prefill", _rates(measured.prefill, prefill)),
            ("weights read", reads),
            ("meetings", _meetings(bill, plan)),
            *([("drafts", drafts)] if drafts else []),
            ("peak memory", ", ".join(map(output.size, bill.peak_rss_bytes)) + ", by node"),
        ]
    )
    print()
    report.print_bill(bill, expected)
    print()
    report.print_plan(plan)


def _meetings(bill: Bill, plan: dict[str, Any]) -> str:
    """How often nodes and threads wait for each other, on the node where they do most."""
    from bandweave.cli import report

    layer = report.per_layer(bill, plan)
    exchanges, barriers = layer["exchanges_per_layer"], layer["barriers_per_layer"]
    return (
        f"{max(bill.exchanges):.0f} exchanges and {max(bill.barriers):.0f} barriers a token, "
        f"{max(exchanges):.1f} and {max(barriers):.1f} a layer"
    )


def _rates(values: Sequence[float], predicted: float | None) -> str:
    text = f"{output.rate(statistics.median(values))} tokens/s"
    if predicted is not None:
        text += f", {output.rate(predicted)} predicted"
    if len(values) == 1:
        return text
    return f"{text} (rounds: {', '.join(map(output.rate, values))})"
