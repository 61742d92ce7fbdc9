"""Sets of machines that a search looks at. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from bandweave.planning.machines.rates import NodeRates
from bandweave.planning.search.layout import Question, Setup

_MOST_SETS = 600
_MOST_EQUAL = 16  # of more equal machines only some numbers are tried


def machine_sets(question: Question, setup: Setup) -> Iterator[tuple[int, ...]]:
    """Sets of machines worth a look: every one, but that of equal machines only their number
    counts; with too many sets, the first k of the machines by speed and by memory."""

    def order(node: int) -> tuple[float, int]:
        return -decode_rate(question, setup.nodes[node]), node

    groups = _groups(setup)
    numbers = [_numbers(len(group)) for group in groups]
    if math.prod(len(options) + 1 for options in numbers) <= _MOST_SETS:
        sets = (
            tuple(node for group, count in zip(groups, counts, strict=True)
                  for node in group[:count])
            for counts in itertools.product(*([0, *options] for options in numbers))
        )  # fmt: skip
        chosen = dict.fromkeys(tuple(sorted(nodes, key=order)) for nodes in sets if nodes)
    else:
        by_speed = sorted((n for n in range(len(setup.nodes)) if setup.runs_on(n)), key=order)
        by_memory = sorted(by_speed, key=lambda node: -setup.nodes[node].memory_bytes)
        chosen = dict.fromkeys(
            tuple(sorted(ranked[:count], key=order))
            for ranked in (by_speed, by_memory)
            for count in _numbers(len(ranked))
        )
        chosen.update(dict.fromkeys((node,) for node in by_speed))
    weights = question.weights.total(question.model.parameters_by_role())
    weights -= question.weights.of("embedding") * question.model.embedding_parameters
    for machines in chosen:
        # What certainly does not fit need not be tried.
        if machines and sum(setup.nodes[node].memory_bytes for node in machines) >= weights:
            yield machines


def decode_rate(question: Question, node: NodeRates) -> float:
    """Bytes of weights a second, as a measure of a machine."""
    return node.weight_rate(question.weights.name, "likely")


def _groups(setup: Setup) -> list[list[int]]:
    """Machines that can stand for each other; none can where pairs have links of their own.
    Those that the engine does not run on are in no group."""
    uniform = not any(network.links for network in setup.networks)
    groups: list[list[int]] = []
    for node, rates in enumerate(setup.nodes):
        if not setup.runs_on(node):
            continue
        same = (group for group in groups if uniform and setup.nodes[group[0]] == rates)
        group = next(same, None)
        if group is None:
            groups.append([node])
        else:
            group.append(node)
    return groups


def _numbers(count: int) -> list[int]:
    few = list(range(1, min(count, _MOST_EQUAL) + 1))
    many, number = [], 20
    while number < count:
        many.append(number)
        number += number * 2 // 5
    return few + many + ([count] if count > _MOST_EQUAL else [])
