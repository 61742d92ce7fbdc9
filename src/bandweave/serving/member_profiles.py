"""Profiles of a cluster's members: what is known of them, after a look of a few seconds at those of
which nothing is. Chooses nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

from bandweave.engine.options import EngineOptions
from bandweave.environment import read_environment
from bandweave.executors.executor import StepError
from bandweave.membership.launcher import MemberLauncher, Placed
from bandweave.membership.membership import Membership
from bandweave.mesh.address import format_address
from bandweave.planning.profile.profile import Profile
from bandweave.serving.cluster_problem import measured_format
from bandweave.serving.profile_store import read_profile, save_profile, why_stale
from bandweave.serving.watcher import Watcher


def measure_members(
    membership: Membership,
    placed: Sequence[Placed],
    options: EngineOptions,
    encryption: str,
    watcher: Watcher,
) -> Profile:
    """The user's profile, and what was measured now, which is stored there. A member's name in it
    is its address."""
    path = read_environment().profile
    try:
        known = read_profile(path)
    except ValueError:
        known = Profile()
    new = [one for one in placed if not _knows(known, one, measured_format(options))]
    unlinked = _unlinked(known, placed, new)
    if not (new or unlinked):
        return known
    count = "1 machine" if len(placed) == 1 else f"{len(placed)} machines"
    watcher.gathering(f"a look at {count}: some seconds")
    try:
        found = _probe(membership, new, options, encryption, links=False)
        found = found.joined(_probe(membership, unlinked, options, encryption, links=True))
    except (StepError, OSError, ValueError, MemoryError) as error:
        watcher.remark(f"(the machines could not be measured: {error})")
        return known
    known = known.joined(found)
    if path is not None:
        try:
            save_profile(path, known)
        except OSError as error:
            watcher.remark(f"(what was measured could not be kept: {error})")
    return known


def _knows(profile: Profile, one: Placed, format: str) -> bool:
    """Whether a profile still speaks for a machine; another may have got its address."""
    name = format_address(one.address)
    known = profile.machines.get(name)
    return (
        known is not None
        and not why_stale(name, known)
        and format in known.formats
        and known.processor == one.machine.processor
        and known.memory_bytes == one.machine.total_bytes
    )


def _unlinked(known: Profile, placed: Sequence[Placed], new: Sequence[Placed]) -> list[Placed]:
    """Those with a link to another one that is to be measured."""
    names = [format_address(one.address) for one in placed]
    found: set[int] = set()
    for b in range(len(placed)):
        for a in range(b):
            link = known.link(names[b], names[a])
            if link is None or placed[a] in new or placed[b] in new:
                found |= {a, b}
    return [placed[one] for one in sorted(found)]


def _probe(
    membership: Membership,
    placed: Sequence[Placed],
    options: EngineOptions,
    encryption: str,
    *,
    links: bool,
) -> Profile:
    """Either their ``links`` or the machines themselves."""
    from bandweave.probing.links import QUICK_SIZES, Schedule
    from bandweave.probing.machine import quick_scope
    from bandweave.probing.session import probe_hosts

    if not placed:
        return Profile()
    return probe_hosts(
        [format_address(one.address) for one in placed],
        membership.secret,
        isa=options.run.isa,
        scope=quick_scope(measured_format(options), options.run.kv_format),
        schedule=Schedule(num_nodes=len(placed), sizes=QUICK_SIZES, rounds=3),
        links_only=links,
        machines_only=not links,
        launcher=MemberLauncher(membership, placed, encryption=encryption),
    )
