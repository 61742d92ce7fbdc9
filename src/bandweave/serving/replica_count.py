"""How many groups that each hold the whole model machines are best divided into, by what was
measured of them. Measures nothing itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

from bandweave.checkpoints.folder import Folder
from bandweave.cluster.groups import group_options
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import node_needs, resolve_context
from bandweave.planning.profile.prediction import Load
from bandweave.planning.profile.profile import Profile
from bandweave.programs.split import make_split
from bandweave.serving.prediction import Predictor, choose_split, find_predictor, stored_profile

Remark = Callable[[str], None]

_TYPICAL = Load(prompt_tokens=256, new_tokens=128)
_LEAST_GAIN = 1.1  # copies cost room for what several streams could share
_MEMORY = 0.9  # of a machine's, which a model may take


def settle_replicas(
    folder: Folder,
    options: EngineOptions,
    remark: Remark = lambda sentence: None,
    profile: Profile | None = None,
) -> EngineOptions:
    """The options with a number of groups, where that is left to us: the one that writes most
    tokens a second to as many streams as there is to be room for. One group where the machines'
    profiles do not tell."""
    if options.replicas:
        return options
    one = replace(options, replicas=1)
    if len(options.shares) == 1:
        return one
    profile = stored_profile() if profile is None else profile
    if find_predictor(profile, one) is None:
        remark(copies_unknown())
        return one
    speeds: dict[int, float] = {}
    for count in range(1, len(options.shares) // options.stages + 1):
        speed = _speed(folder, replace(options, replicas=count), profile)
        if speed is not None:
            speeds[count] = speed
    return replace(options, replicas=copies_that_pay(speeds, options.run.streams, remark))


def copies_unknown() -> str:
    """Why there is one copy where nobody has said how many."""
    return (
        "(one copy of the model: how many pay is not known before `bandweave probe` has "
        "measured the machines; --replicas R chooses)"
    )


def copies_that_pay(speeds: Mapping[int, float], streams: int, remark: Remark) -> int:
    """The number of copies with most tokens a second, which ``speeds`` has by their number, where
    that is worth what they cost; says so. One copy where nothing is known."""
    best = max(speeds, key=lambda count: speeds[count], default=1)
    if speeds.get(1) is not None and speeds[best] < _LEAST_GAIN * speeds[1]:
        best = 1
    if best > 1 and 1 in speeds:
        gain = speeds[best] / speeds[1]
        remark(
            f"{best} copies of the model: the machines' profiles promise {gain:.2f} times the "
            f"tokens/s of one for {streams} streams (--replicas chooses others)"
        )
    return best


def _speed(folder: Folder, options: EngineOptions, profile: Profile) -> float | None:
    """Tokens a second of all groups together; None where one does not fit, or is not known."""
    groups = [choose_split(folder, one) for one in group_options(options)]
    needs: dict[str, int] = defaultdict(int)
    rooms: dict[str, int] = {}
    total = 0.0
    for group in groups:
        predictor = find_predictor(profile, group)
        if predictor is None:
            return None
        split = make_split(folder.spec, group.shares, stages=group.stages)
        needed = node_needs(folder, split, group, resolve_context(folder, group))
        for node, need in zip(predictor.nodes, needed, strict=True):
            needs[node.host] += need.total_bytes
            rooms[node.host] = node.machine.memory_bytes
        streams = max(1, math.ceil(options.run.streams / len(groups)))
        speed = predicted_speed(folder, predictor, group, streams)
        if speed is None:
            return None
        total += speed
    if any(needs[host] > _MEMORY * room for host, room in rooms.items()):
        return None
    return total


def predicted_speed(
    folder: Folder, predictor: Predictor, group: EngineOptions, streams: int
) -> float | None:
    """Tokens a second of so many streams of a group; None where the profiles lack its format."""
    load = dataclasses.replace(
        _TYPICAL,
        streams=streams,
        weight_format=group.run.weight_format,
        kv_format=group.run.kv_format,
        max_rows=max(streams, group.run.max_rows),
    )
    split = make_split(folder.spec, group.shares, stages=group.stages)
    try:
        return predictor.predict(folder, split, load).decode_tokens_per_s
    except ValueError:
        return None
