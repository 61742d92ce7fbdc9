"""Groups: how nodes are divided into groups that each hold the whole model. Pure."""

from __future__ import annotations

from dataclasses import replace

from bandweave.engine.options import EngineOptions


def group_options(options: EngineOptions) -> list[EngineOptions]:
    """The options of each group: neighbours among the nodes, in groups as alike as can be, the
    first ones larger; spare ones are dealt out in turn. ``ValueError`` where a group has fewer
    nodes than stages."""
    count, nodes = options.replicas, len(options.shares)
    if count == 1:
        return [options]
    groups, first = [], 0
    for number in range(count):
        size = nodes // count + (number < nodes % count)
        if size < options.stages:
            raise ValueError(
                f"{options.stages} stages need as many nodes in every group, but {nodes} nodes in "
                f"{count} groups leave {size} for one; give fewer --replicas or --stages"
            )
        own = slice(first, first + size)
        groups.append(
            replace(
                options,
                replicas=1,
                shares=options.shares[own],
                hosts=options.hosts[own],
                first_node=0 if options.hosts else first,
                all_nodes=0 if options.hosts else nodes,
                emulate=options.emulate if size > 1 else None,
                spare=len(range(number, options.spare, count)),
                spare_hosts=options.spare_hosts[number::count],
            )
        )
        first += size
    return groups
