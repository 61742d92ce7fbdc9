"""What this engine takes for a step on probed machines, item by item, before it runs.

Sizes come from ``programs.work``, seconds from profiles. Nodes have clocks that meet where their
messages do, so that waiting shows as it does in the engine's bill. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bandweave.formats.names import QUANTISED_FORMATS
from bandweave.models.graph import Graph
from bandweave.planning.profile.bill import ITEMS, WIRE_KINDS, Bill
from bandweave.planning.profile.engine_node import EngineNode
from bandweave.planning.profile.host_sharing import HostSharing
from bandweave.planning.profile.link_profile import LinkProfile, LinkTime
from bandweave.programs.split import Split
from bandweave.programs.work import (
    FRAME_BYTES,
    Attention,
    Elements,
    Local,
    Product,
    Reduce,
    Segment,
    Send,
    Step,
    step_work,
)

Links = Callable[[int, int], LinkProfile]  # between two nodes


def predict_step(
    graph: Graph,
    split: Split,
    nodes: Sequence[EngineNode],
    links: Links,
    step: Step,
    *,
    weight_format: str,
    kv_format: str,
) -> Bill:
    """The bill of one step. ``ValueError`` where a profile lacks the format."""
    if len(nodes) != split.num_nodes:
        raise ValueError(f"{len(nodes)} machines for {split.num_nodes} nodes")
    work = list(step_work(graph, split, step, format=weight_format))
    sharing = HostSharing(nodes, work, weight_format=weight_format)
    cost = _Cost(nodes, links, sharing, weight_format, kv_format)
    for segment, times in work:
        # Layers of a stage are alike; the first starts from other clocks, the rest from even ones.
        cost.run(segment, times)
    first = nodes[0].machine.step
    logits = step.logit_rows * graph.spec.vocab_size if step.logits else 0
    cost.spend(0, "sampling", logits * first.seconds_per_logit)
    cost.spend(0, "other", first.seconds_per_step + step.rows * first.seconds_per_row)
    return cost.bill()


class _Cost:
    """Clocks and bills of all nodes while a step goes by."""

    def __init__(
        self,
        nodes: Sequence[EngineNode],
        links: Links,
        sharing: HostSharing,
        weight_format: str,
        kv_format: str,
    ) -> None:
        self.nodes, self.links, self.sharing = nodes, links, sharing
        self.weight_format, self.kv_format = weight_format, kv_format
        self.clock = [0.0] * len(nodes)
        self.items: list[dict[str, float]] = [dict.fromkeys(ITEMS, 0.0) for _ in nodes]
        self.weight_bytes = [0] * len(nodes)
        self.wire_bytes: dict[str, int] = dict.fromkeys(WIRE_KINDS, 0)

    def spend(self, node: int, item: str, seconds: float, times: int = 1) -> None:
        self.items[node][item] += seconds * times
        self.clock[node] += seconds * times

    def bill(self) -> Bill:
        # Until node 0 opens the next step the others wait for it.
        wall = sum(self.items[0].values())
        for items in self.items[1:]:
            items["exchange_wait"] += max(0.0, wall - sum(items.values()))
        return Bill(
            seconds=tuple({**items, "wall": sum(items.values())} for items in self.items),
            weight_bytes=tuple(self.weight_bytes),
            wire_bytes=self.wire_bytes,
        )

    # --- a segment ---

    def run(self, segment: Segment, times: int) -> None:
        local = {node: self._local(node, segment.local) for node in segment.local}
        alone = {node: one["weights"] for node, one in local.items()}
        read = self.sharing.reading_seconds(segment.local, alone)
        for node, seconds in local.items():
            for item, value in {**seconds, "weights": read[node]}.items():
                self.spend(node, item, value, times)
            sizes = [w.weight_bytes for w in segment.local[node] if isinstance(w, Product)]
            self.weight_bytes[node] += times * sum(sizes)
        for meeting in segment.meetings:
            if isinstance(meeting, Reduce):
                self._reduce(meeting, times, _made(segment, read))
            else:
                self._send(meeting, times)

    def _local(self, node: int, work: Mapping[int, Sequence[Local]]) -> dict[str, float]:
        """Seconds by item, as if nobody else read the machine's memory."""
        seconds = {"weights": 0.0, "attention": 0.0, "other": 0.0}
        beside = self.sharing.threads_beside(node, work)
        for one in work[node]:
            if isinstance(one, Product):
                seconds["weights"] += self._product(node, one)
            elif isinstance(one, Attention):
                seconds["attention"] += self._attention(node, one, beside)
            else:
                item = "attention" if one.kind == "kv_append" else "other"
                seconds[item] += self._elements(node, one)
        slowed = self.sharing.crowding(node, work)
        return {item: value * slowed for item, value in seconds.items()}

    def _product(self, node: int, work: Product) -> float:
        machine, threads = self.nodes[node].machine, self.nodes[node].threads
        rate = self.nodes[node].seconds_per_byte(
            self.weight_format,
            on_grid=work.on_grid,
            rows=work.rows,
            threads=threads,
            cached=self.sharing.cached,
        )
        seconds = machine.op_seconds(threads) + rate * work.weight_bytes
        if self.weight_format in QUANTISED_FORMATS:
            # One row is quantised by every thread for itself, several are shared out.
            rows = work.rows if work.rows == 1 else work.rows / threads
            kind = f"quantise_{self.weight_format}"
            seconds += machine.element_seconds(kind, work.rows) * work.inputs * rows
            finish = machine.element_seconds(f"outputs_{self.weight_format}", work.rows)
            seconds += finish * work.outputs * work.rows / threads
        return seconds

    def _attention(self, node: int, work: Attention, beside: int) -> float:
        machine, threads = self.nodes[node].machine, self.nodes[node].threads
        busy = min(threads, work.rows * work.heads)
        # Heads go together only as long as every thread has some.
        together = min(work.together, max(1.0, work.rows * work.heads / threads))
        each = machine.attention_seconds(
            self.kv_format,
            together=together,
            streamed=work.rows == 1 and self.sharing.cached < 0.5,
            threads=max(beside, threads),
        )
        elements = work.rows * work.keys * work.heads * work.dim
        # What finding queries and pages takes beside reading them.
        found = machine.element_seconds("attention", work.rows) * work.rows * work.heads * work.dim
        return machine.op_seconds(threads) + (each * elements + found) / busy

    def _elements(self, node: int, work: Elements) -> float:
        machine, threads = self.nodes[node].machine, self.nodes[node].threads
        each = machine.element_seconds(work.kind, work.rows) * work.count
        return machine.op_seconds(threads) + each / min(threads, work.parts)

    # --- meetings ---

    def _reduce(self, meeting: Reduce, times: int, made: Mapping[int, float]) -> None:
        """``made``: seconds of the product that gives each node's sums."""
        group = meeting.group
        for node in group:
            own = self._elements(
                node,
                Elements(
                    kind="all_reduce_add",
                    count=meeting.count,
                    rows=meeting.rows,
                    parts=meeting.count // 64 + 1,
                ),
            )
            self.spend(node, "other", own, times)
        if len(group) == 1:
            return
        arrive = max(self.clock[node] for node in group)
        # A run of alike layers starts from even clocks but once: what the first wait was, all are.
        for node in group:
            wait = arrive - self.clock[node]
            self.items[node]["exchange_wait"] += wait
            self.clock[node] = arrive
        size = meeting.payload_bytes + FRAME_BYTES * meeting.chunks
        spent = {node: self._exchange(node, meeting, size) for node in group}
        longest = max(sum(one) for one in spent.values())
        for node, (wire, wait, other) in spent.items():
            wait += longest - wire - wait - other
            wait -= min(wait, self._hidden(meeting, wait, made.get(node, 0.0)))
            self.spend(node, "wire", wire, times)
            self.spend(node, "other", other, times)
            self.spend(node, "exchange_wait", wait, times)
            if node in meeting.contributors:
                self.wire_bytes["activations"] += times * size * (len(group) - 1) * meeting.hops

    @staticmethod
    def _hidden(meeting: Reduce, crossing: float, product: float) -> float:
        """Seconds of crossing that pass while the product goes on: of all chunks but the last, as
        long as the product of all but the first lasts."""
        return (meeting.chunks - 1) / meeting.chunks * min(crossing, product)

    def _exchange(self, node: int, meeting: Reduce, size: int) -> tuple[float, float, float]:
        """Seconds to send, to wait for what comes, and to encode and add. Messages to and from
        several nodes share a node's way out: the bytes of all but one come on top."""
        peers = [peer for peer in meeting.group if peer != node]
        links = [self.links(node, peer) for peer in peers]
        times = [link.at(size) for link in links]
        wire = sum(time.wire_seconds for time in times)
        wait = max(time.wait_seconds for time in times)
        wait += sum(size / link.bytes_per_s for link in links) - max(
            size / link.bytes_per_s for link in links
        )
        hops = meeting.hops
        return wire * hops, wait * hops, self._codec(node, links, times) * hops

    def _codec(self, node: int, links: Sequence[LinkProfile], times: Sequence[LinkTime]) -> float:
        """Encoding once and adding what each peer sent; long messages are shared by threads."""
        least = max(link.at(1).other_seconds for link in links)
        longer = sum(max(0.0, time.other_seconds - least) for time in times)
        return least + longer / self.nodes[node].threads

    def _send(self, meeting: Send, times: int) -> None:
        size = meeting.payload_bytes + FRAME_BYTES
        sent = self.clock[meeting.source]
        for target in meeting.targets:
            time = self.links(meeting.source, target).at(size)
            self.spend(meeting.source, "wire", time.wire_seconds, times)
            arrives = self.clock[meeting.source] + time.wait_seconds
            late = max(0.0, arrives - self.clock[target])
            self.spend(target, "exchange_wait", late)
        assert self.clock[meeting.source] >= sent
        self.wire_bytes[meeting.kind] += times * size * len(meeting.targets)


def _made(segment: Segment, read: Mapping[int, float]) -> dict[int, float]:
    """Of the seconds of each node's products, those that make sums."""
    result = {}
    for node, local in segment.local.items():
        products = [one for one in local if isinstance(one, Product)]
        sums = sum(one.weight_bytes for one in products if one.on_grid)
        result[node] = read[node] * sums / max(1, sum(one.weight_bytes for one in products))
    return result
