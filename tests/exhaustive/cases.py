"""The dimensions over which one answer must hold: their product, and rows that cover every pair.

Knows names and numbers only; how a case is run is the runner's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from zlib import crc32

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import DEMO, resolve_model
from bandweave.formats.names import STORED
from bandweave.models.spec import ModelSpec
from tests.helpers.family_specs import FAMILY_SPECS
from tests.helpers.gguf_mixed import mixed_spec
from tests.helpers.random_model import ODD_SPECS

Value = str | int
Pair = tuple[str, Value, str, Value]  # two dimensions with a value each

GGUF = "gguf"  # a model of blocks of all types, mixed
WHOLE = 0  # a chunk that takes the prompt in one piece
ALONE, BATCH = "alone", "batch"
DIRECT, SCATTERED = "direct", "scattered"  # sums: as usual at these sizes; in slices and chunks
PLAIN, DRAFTS = "plain", "drafts"
KEPT, FLUSHED = "kept", "flushed"  # subnormals; see docs/numerics.md, section 11

SPLITS: Mapping[str, tuple[tuple[int, ...], int]] = {  # shares and stages
    "1": ((1,), 1),
    "2": ((1,) * 2, 1),
    "3": ((1,) * 3, 1),
    "5": ((1,) * 5, 1),
    "7": ((1,) * 7, 1),
    "3,2,1": ((3, 2, 1), 1),
    "5,1": ((5, 1), 1),
    "2 stages": ((1,) * 2, 2),
    "3 stages": ((1,) * 3, 3),
    "2x2": ((1,) * 4, 2),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to compute an answer; ``chunk`` in prompt tokens, ``company`` is alone or batch,
    ``speculation`` is plain, or drafts of which some are right."""

    model: str
    weights: str
    kv: str
    split: str
    isa: str
    threads: int
    company: str
    chunk: int
    sums: str = DIRECT
    subnormals: str = KEPT
    speculation: str

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())

    @property
    def group(self) -> tuple[str, str, str]:
        """All cases of a group must give the same answer."""
        return self.model, self.weights, self.kv

    @property
    def mesh(self) -> tuple[Value, ...]:
        """Cases of one mesh can share its loaded nodes."""
        return *self.group, self.split, self.isa, self.threads, self.sums, self.subnormals


def spec_of(model: str) -> ModelSpec:
    """The spec of a model of the product by its name."""
    if model == GGUF:
        return mixed_spec()
    if model in FAMILY_SPECS:
        return FAMILY_SPECS[model]
    if model != DEMO:
        return ODD_SPECS[model]
    with Folder.open(resolve_model(DEMO)) as folder:
        return folder.spec


#: What the pairwise cases leave to the product: dense models whose sizes alone are their own.
ONLY_IN_PRODUCT = ("heads_of_80", "llama3_rope", "partial_rope")


def dimensions() -> dict[str, tuple[Value, ...]]:
    """The values of every field of a case, in the fields' order; all variants of this machine."""
    return {
        "model": (DEMO, GGUF, *ODD_SPECS),
        "weights": ("f32", "bf16", "q8", "q4", "mxfp4", "nf4", "ulaw4", STORED),
        "kv": ("f16", "f32"),
        "split": tuple(SPLITS),
        "isa": tuple(_native.isa_variants()),
        "threads": (1, 2),
        "company": (ALONE, BATCH),
        "chunk": (WHOLE, 1, 7, 64),
        "sums": (DIRECT, SCATTERED),
        "subnormals": (KEPT, FLUSHED),
        "speculation": (PLAIN, DRAFTS),
    }


def paired_dimensions() -> dict[str, tuple[Value, ...]]:
    """The same with the models of the pairwise cases."""
    found = dimensions()
    models = tuple(name for name in found["model"] if name not in ONLY_IN_PRODUCT)
    return {**found, "model": models}


def clashes() -> set[Pair]:
    """Pairs that cannot be: more stages than the model has layers; and weights as they are stored
    but of the model of blocks, which goes with no others."""
    found = dimensions()
    layers = {model: spec_of(str(model)).num_layers for model in found["model"]}
    stored: set[Pair] = {
        ("model", model, "weights", weights)
        for model in layers
        for weights in found["weights"]
        if (model == GGUF) != (weights == STORED)
    }
    return stored | {
        ("model", model, "split", split)
        for model, count in layers.items()
        for split, (_, stages) in SPLITS.items()
        if stages > count
    }


def all_cases() -> list[Case]:
    """The product of the dimensions, cases of one mesh side by side. How sums travel and whether
    subnormals stay, by mesh, and speculation, by case, take one of their two values each, as by
    lot: all of them would make eight times as many cases."""
    choices, impossible = dimensions(), clashes()
    lots = {name: choices.pop(name) for name in ("sums", "subnormals", "speculation")}
    rows = (dict(zip(choices, values, strict=True)) for values in product(*choices.values()))
    cases = []
    for row in rows:
        if not impossible.isdisjoint(pairs_of(row)):
            continue
        of_mesh = [row[name] for name in choices if name not in ("company", "chunk")]
        row["sums"] = _draw(lots["sums"], of_mesh)
        row["subnormals"] = _draw(lots["subnormals"], ["subnormals", *of_mesh])
        row["speculation"] = _draw(lots["speculation"], list(row.values()))
        cases.append(_case(row))
    return cases


def _draw(values: Sequence[Value], key: Sequence[Value]) -> Value:
    return values[crc32(repr(key).encode()) % len(values)]


def pairwise_cases() -> list[Case]:
    """Few cases that hold every possible pair of values of two dimensions, by mesh."""
    cases = [_case(row) for row in covering_array(paired_dimensions(), clashes())]
    return sorted(cases, key=str)


def family_cases(each: int) -> list[Case]:
    """So many cases of every family, whose other dimensions take values by lot, but splits in
    turn: what families add to the product's models is split, summed and stored like theirs."""
    cases = []
    several = [split for split in SPLITS if split != "1"]
    choices = dimensions()
    choices["weights"] = tuple(one for one in choices["weights"] if one != STORED)
    for number, model in enumerate(FAMILY_SPECS):
        possible = [
            split for split in several if SPLITS[split][1] <= FAMILY_SPECS[model].num_layers
        ]
        for index in range(each):
            row = {name: _draw(of, [name, model, index]) for name, of in choices.items()}
            row["model"] = model
            row["split"] = possible[(number * each + index) % len(possible)]
            cases.append(_case(row))
    return sorted(cases, key=str)


def _case(row: Mapping[str, Value]) -> Case:
    return Case(**row)  # type: ignore[arg-type]


# --- covering arrays ---


def pairs_of(row: Mapping[str, Value]) -> Iterator[Pair]:
    """All pairs of a row, dimensions in the row's order."""
    for (a, value_a), (b, value_b) in combinations(row.items(), 2):
        yield a, value_a, b, value_b


def all_pairs(choices: Mapping[str, Sequence[Value]]) -> list[Pair]:
    """Every pair that a row over ``choices`` may hold, in order."""
    return [
        (a, value_a, b, value_b)
        for a, b in combinations(choices, 2)
        for value_a, value_b in product(choices[a], choices[b])
    ]


def covering_array(
    choices: Mapping[str, Sequence[Value]], impossible: set[Pair]
) -> list[dict[str, Value]]:
    """Rows that together hold every possible pair, greedily few, always the same ones.

    Every row starts from the first pair that is missing and then takes, dimension by dimension,
    the value that adds most new pairs (after the idea of AETG, Cohen et al. 1997).
    """
    missing = dict.fromkeys(pair for pair in all_pairs(choices) if pair not in impossible)
    used: dict[tuple[str, Value], int] = {}
    rows = []
    while missing:
        a, value_a, b, value_b = next(iter(missing))
        fixed: dict[str, Value] = {a: value_a, b: value_b}
        others = sorted((name for name in choices if name not in fixed), key=lambda name: (
            -len(choices[name]), name))  # fmt: skip
        for name in others:
            fixed[name] = _best(name, choices, fixed, missing, impossible, used)
        row = {name: fixed[name] for name in choices}
        for pair in pairs_of(row):
            missing.pop(pair, None)
        for item in row.items():
            used[item] = used.get(item, 0) + 1
        rows.append(row)
    return rows


def _best(
    name: str,
    choices: Mapping[str, Sequence[Value]],
    fixed: Mapping[str, Value],
    missing: Mapping[Pair, None],
    impossible: set[Pair],
    used: Mapping[tuple[str, Value], int],
) -> Value:
    """The value with most new pairs, then the least used one, then the first."""
    order = list(choices)

    def pairs(value: Value) -> list[Pair]:
        row = {**fixed, name: value}
        ordered = {key: row[key] for key in order if key in row}
        return [pair for pair in pairs_of(ordered) if name in (pair[0], pair[2])]

    allowed = [value for value in choices[name] if impossible.isdisjoint(pairs(value))]
    assert allowed, f"no value of {name} goes with {dict(fixed)}"
    return min(
        allowed,
        key=lambda value: (
            -sum(pair in missing for pair in pairs(value)),
            used.get((name, value), 0),
            choices[name].index(value),
        ),
    )
