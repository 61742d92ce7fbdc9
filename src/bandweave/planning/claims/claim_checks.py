"""The checks behind ``claims``: each computes its figures and judges by them. Pure but for data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from bandweave.models.known_models import known_model
from bandweave.planning.claims.normal_weights import lost_of_normal_weights
from bandweave.planning.costs.cost import decode_range
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.hardware import GIB, Hardware, find_hardware, hardware_names
from bandweave.planning.machines.links import find_link
from bandweave.planning.machines.rates import LinkRates
from bandweave.planning.search.columns import Machines, best_answer, engine_answer, limit_setup
from bandweave.planning.search.explain import plan_items
from bandweave.planning.search.layout import Question
from bandweave.planning.search.search import Answer, Plan
from bandweave.planning.search.shortage import needed_bytes, read_bytes

TRUE, HALF, FALSE = "true", "half true", "false"
TRUE_OF_SPEED = "true of the speed"  # and the rest is none of a planner's business

ULTRA, _LINK, R1 = "m3-ultra-512", "thunderbolt-5-rdma", "deepseek-r1"
_READING = 7.0  # tokens/s: 300 words a minute, 4 tokens to 3 words


def planned(
    model: str, format_name: str, names: tuple[str, ...], link: LinkRates | None = None
) -> Answer:
    """What the best software does on these machines, with one stream."""
    machines = Machines(
        hardware=tuple(find_hardware(name) for name in names), links=(link or find_link(_LINK),)
    )
    answer = best_answer(_question(model, format_name), machines)
    assert answer is not None, f"{model} in {format_name} on {names}"
    return answer


def split_plans(link: LinkRates) -> tuple[Plan, ...]:
    """What MLX, which splits tensors over any link, makes of R1 in 4 bits on two M3 Ultra."""
    ultra = find_hardware(ULTRA)
    answer = engine_answer(
        _question(R1, "q4"), Machines(hardware=(ultra, ultra), links=(link,)), "mlx"
    )
    assert answer is not None
    return answer.plans


def _one_machine_speed() -> float:
    return _speed(planned(R1, "q4", (ULTRA,)))


@lru_cache(maxsize=8)
def _two_ultras(format_name: str) -> Answer:
    return planned(R1, format_name, (ULTRA, ULTRA))


def _question(model: str, format_name: str) -> Question:
    return Question(model=known_model(model), weights=find_format(format_name))


def _range(answer: Answer) -> str:
    span = decode_range(answer.best.deployment, answer.question.decoding)
    return f"{span.likely:.1f} tokens/s ({span.low:.1f} to {span.high:.1f})"


def _speed(answer: Answer) -> float:
    return answer.best.decode.tokens_per_s


def _crossing_bytes(answer: Answer) -> float:
    """What one node sends for a token: two exchanges a layer."""
    model = answer.question.model
    return 2 * len(model.layers) * model.hidden * answer.setup.engine.wire_bytes_per_value


def _slow_link() -> tuple[str, str]:
    two, link = _two_ultras("q8"), find_link(_LINK)
    memory = find_hardware("desktop-ddr5-5600").bytes_per_s
    items = plan_items(two.best)
    part = (items.exchange_latency_s + items.exchange_bytes_s) / items.total_s
    verdict = FALSE if _speed(two) > _READING and part < 0.25 else TRUE
    return (
        verdict,
        f"""The link is slower: {link.bytes_per_s.likely / 1e9:.1f} GB/s of goodput
        against {memory / 1e9:.0f} GB/s of two-channel DDR5, a factor of
        {memory / link.bytes_per_s.likely:.0f}. But weights do not cross it. A node sends
        {_crossing_bytes(two) / 1e6:.1f} MB a token; the link takes {part:.0%} of the time, most of
        it latency, and two machines come to {_range(two)} in 8 bits.""",
    )


def _epyc() -> tuple[str, str]:
    two, epyc = _two_ultras("q4"), planned(R1, "q4", ("epyc-7702-8ch",))
    price = find_hardware(ULTRA).price_usd
    assert price is not None
    even = 2 * price * _speed(epyc) / _speed(two)
    verdict = HALF if _speed(epyc) < _speed(two) else TRUE
    return (
        verdict,
        f"""Not more: in 4 bits an EPYC 7702 with 8 channels of DDR4-3200 comes to
        {_range(epyc)}, two M3 Ultra to {_range(two)}, and one to {_one_machine_speed():.1f}. For
        its price perhaps: the server wins for each dollar if it costs less than ${even:,.0f},
        against ${2 * price:,.0f} for the two.""",
    )


def _one_transfer() -> tuple[str, str]:
    dense, experts = known_model("llama-3.1-70b"), known_model(R1)
    weights = find_format("q8")
    answer = planned("llama-3.1-70b", "q8", (ULTRA,))
    items = plan_items(answer.best)
    part = items.weights_s / items.total_s
    ratio = dense.read_parameters / dense.total_parameters
    verdict = TRUE if ratio > 0.9 and part > 0.5 else HALF
    return (
        verdict,
        f"""A token of Llama 3.1 70B reads {ratio:.0%} of its parameters (of the
        embedding table one row is enough), {read_bytes(dense, weights) / 1e9:.0f} GB in 8 bits, and
        {part:.0%} of its time goes into that; DeepSeek R1 reads
        {experts.read_parameters / 1e9:.1f} of {experts.total_parameters / 1e9:.0f} billion. Several
        streams at once share the reading.""",
    )


def _no_weights_cross() -> tuple[str, str]:
    two = _two_ultras("q8")
    return (
        TRUE,
        f"""That is how bandweave works. It counts its traffic by kind; `weights` is 0.
        What crosses for R1 is {_crossing_bytes(two) / 1e6:.1f} MB of activations a token and node,
        for {read_bytes(two.question.model, two.question.weights) / 1e9:.0f} GB of weights read.""",
    )


def _each_holds_all() -> tuple[str, str]:
    needs = {}
    for name in ("q8", "q4"):
        question = _question(R1, name)
        setup = limit_setup(Machines(hardware=(find_hardware(ULTRA),), links=(find_link(_LINK),)))
        needs[name] = needed_bytes(question, setup) / GIB
        room = setup.nodes[0].memory_bytes / GIB
    fits = [name for name, need in needs.items() if need <= room]
    verdict = {0: FALSE, 1: HALF, 2: TRUE}[len(fits)]
    return (
        verdict,
        f"""In 8 bits R1 needs {needs["q8"]:.0f} GiB, in 4 bits {needs["q4"]:.0f} GiB; a
        machine with 512 GB, which are GiB, has about {room:.0f} to give. So yes in 4 bits, no in 8.
        Both need not hold everything: half is enough, and only half is read.""",
    )


def _what_crosses() -> tuple[str, str]:
    two = _two_ultras("q8")
    model = two.question.model
    cache = model.kv_elements(8192) * 2
    return (
        HALF,
        f"""Activations do, {_crossing_bytes(two) / 1e6:.1f} MB a token for R1. The KV
        cache ({cache / 1e9:.2f} GB at 8192 tokens) does not: it stays with the heads or layers that
        made it. bandweave counts 0 bytes of it on the wire.""",
    )


def _sums() -> tuple[str, str]:
    ultra, two = find_hardware(ULTRA), _two_ultras("q4")
    pair = Machines(hardware=(ultra, ultra), links=(find_link(_LINK),))
    staged = engine_answer(two.question, pair, "llama.cpp")
    assert staged is not None and staged.single is not None
    pipeline = next(plan for plan in staged.plans if plan.kind == "pipeline")
    single, usable = _one_machine_speed(), two.setup.nodes[0].memory_bytes
    gain = _speed(two) / single
    return (
        (TRUE if gain > 1.9 else HALF),
        f"""On paper {2 * ultra.bytes_per_s / 1e12:.2f} TB/s and
        {2 * ultra.memory_bytes / GIB / 1024:.0f} TB, of which {2 * usable / GIB / 1024:.2f} TB are
        usable. A tensor split does read weights on both at once, but R1 in 4 bits gets
        {gain:.2f} times as fast, not twice: the fixed time of each layer and the link's latency do
        not shrink. A pipeline adds memory alone: with llama.cpp
        {pipeline.decode.tokens_per_s:.1f} tokens/s against
        {staged.single.decode.tokens_per_s:.1f} on one.""",
    )


def _forty_and_eighty() -> tuple[str, str]:
    eight, four = _two_ultras("q8"), _two_ultras("q4")
    model = eight.question.model
    both = 2 * find_hardware(ULTRA).bytes_per_s
    given = 2 * eight.setup.nodes[0].weight_rate("q8", "likely") / both
    bounds = [both / read_bytes(model, answer.question.weights) for answer in (eight, four)]
    spans = [decode_range(answer.best.deployment, answer.question.decoding)
             for answer in (eight, four)]  # fmt: skip
    reached = [span.high >= wanted for span, wanted in zip(spans, (40, 80), strict=True)]
    verdict = TRUE if all(reached) else HALF if any(reached) else FALSE
    return (
        verdict,
        f"""Predicted are {_range(eight)} in 8 bits and {_range(four)} in 4. The claimed
        figures are what 1.6 TB/s alone would allow if nothing else took time
        ({bounds[0]:.0f} and {bounds[1]:.0f} tokens/s): memory gives {given:.0%} of its peak, and
        attention, the engine's fixed time of {len(model.layers)} layers and the link come on
        top.""",
    )


def _comfortable() -> tuple[str, str]:
    eight = _two_ultras("q8")
    times = _speed(eight) / _READING
    verdict = TRUE_OF_SPEED if times > 1 else FALSE
    return (
        verdict,
        f"""{_range(eight)} are {times:.1f} times as fast as people read
        (about {_READING:.0f} tokens/s). Which model is better is nothing that a planner can
        say.""",
    )


def _small_fractions() -> tuple[str, str]:
    ultra = find_hardware(ULTRA)
    words, flops, reads = [], [], []
    for name in ("h100", "h200", "b200"):
        other = find_hardware(name)
        flops.append(ultra.flop_per_s["fp16"] / other.flop_per_s["fp16"])
        reads.append(ultra.bytes_per_s / other.bytes_per_s)
        words.append(f"{name.upper()} {flops[-1]:.1%} and {reads[-1]:.0%}")
    verdict = TRUE if max(flops) < 0.05 and max(reads) < 0.5 else HALF
    return (
        verdict,
        f"""Of dense 16-bit FLOP/s and of bandwidth an M3 Ultra has: {"; ".join(words)}.
        That shows in prefill, which follows FLOP/s, and hardly in decoding for one user, which
        follows bandwidth.""",
    )


def _a_third() -> tuple[str, str]:
    ultra, blackwell = find_hardware(ULTRA), find_hardware("b200")
    plain = ultra.flop_per_s["fp32"] / blackwell.flop_per_s["fp32"]
    matrix = ultra.flop_per_s["fp16"] / blackwell.flop_per_s["fp16"]
    verdict = HALF if abs(plain - 1 / 3) < 0.05 and matrix < 0.1 else TRUE
    return (
        verdict,
        f"""In FP32 without matrix units {ultra.flop_per_s["fp32"] / 1e12:.0f} of
        {blackwell.flop_per_s["fp32"] / 1e12:.0f} TFLOP/s is {plain:.0%}, so the sum is right. But
        models multiply in 16 bits or fewer, on matrix units that an M3 has not: there it is
        {matrix:.1%}.""",
    )


def _memory_and_power() -> tuple[str, str]:
    ultra, blackwell = find_hardware(ULTRA), find_hardware("b200")
    memory = blackwell.memory_bytes / ultra.memory_bytes
    ours, theirs = ultra.measured_watts or ultra.watts, blackwell.watts
    assert ours is not None and theirs is not None
    power = ours / theirs
    verdict = FALSE if memory > 0.1 and power > 0.1 else TRUE
    return (
        verdict,
        f"""A B200 has {blackwell.memory_bytes / GIB:.0f} GB against
        {ultra.memory_bytes / GIB:.0f}, {memory:.0%}; an M3 Ultra takes about {ours:.0f} W while it
        runs a model, against {theirs:.0f} W rated for a B200 without its host, {power:.0%}. A third
        and a quarter do not vanish.""",
    )


def _four_bits() -> tuple[str, str]:
    blackwell = find_hardware("b200")
    dense = blackwell.flop_per_s["fp4"] / 1e15
    floats, law, even = (lost_of_normal_weights(name) for name in ("mxfp4", "ulaw4", "q4"))
    return (
        HALF,
        f"""FP4 (E2M1) has a sign, two bits of exponent and one of fraction: 0, 0.5, 1, 1.5,
        2, 3, 4, 6 and their negatives, times a scale for a block. That is floating point, with 15
        different values; and so in kind are the µ-law and A-law, whose segments are exponents. But
        the 20 petaFLOP/s count sparsity: a B200 does {dense:.0f} dense ones. They are not the same,
        either: of the squares of normally distributed weights FP4 with a power of two for 32
        (mxfp4, 4.25 bits) loses {floats:.1%}, 16 even steps (q4, 4.5 bits) {even:.2%}, and a flat
        µ-law (ulaw4, 4.5 bits) {law:.2%}. bandweave runs all three, by one table look-up; what they
        do to a model's answers is in docs/formats.md.""",
    )


def _sparse() -> tuple[str, str]:
    accelerators = [h for h in map(find_hardware, hardware_names()) if _has_matrix_units(h)]
    doubled = [h for h in accelerators if h.sparse_factor > 1]
    part = len(doubled) / len(accelerators)
    h100 = find_hardware("h100").flop_per_s["fp16"] / 1e12
    verdict = TRUE if part > 0.5 else HALF if part > 0.2 else FALSE
    return (
        verdict,
        f"""Makers quote twice the dense figure for {len(doubled)} of the
        {len(accelerators)} accelerators in the catalogue that multiply 16-bit matrices faster than
        FP32: an H100's 1979 TFLOP/s are {h100:.0f} dense. Language models are not sparse like that,
        so the planner counts dense ones only.""",
    )


def _has_matrix_units(hardware: Hardware) -> bool:
    peaks = hardware.flop_per_s
    accelerator = not hardware.is_processor and hardware.kind != "apple"
    return accelerator and peaks.get("fp16", 0) > 1.01 * peaks.get("fp32", 0)


CHECKS: Mapping[int, Callable[[], tuple[str, str]]] = {
    1: _slow_link, 2: _epyc, 3: _one_transfer, 4: _no_weights_cross, 5: _each_holds_all,
    6: _what_crosses, 7: _sums, 8: _forty_and_eighty, 9: _comfortable, 10: _small_fractions,
    11: _a_third, 12: _memory_and_power, 13: _four_bits, 14: _sparse,
}  # fmt: skip
