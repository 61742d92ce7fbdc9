"""bandweave: a model on N nodes of this machine, or on named hosts, with T threads each.

Measures what ``bandweave bench`` measures, by the same accounts, but stays loaded between samples.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from bandweave import NUMERICS_VERSION, __version__
from bandweave.checkpoints.folder import Folder
from bandweave.engine.bill import make_bill
from bandweave.engine.engine import Engine
from bandweave.engine.holdings import plan_of
from bandweave.engine.options import EngineOptions
from bandweave.environment import read_environment
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.handshake.encryption import AUTO, NEVER
from bandweave.handshake.secret import read_secret
from bandweave.planning.profile.emulation import emulated_link
from bandweave.run_options import RunOptions
from benchmarks.peers.protocol import Work, serve


class Bandweave:
    """A loaded engine."""

    def __init__(self, path: str, options: EngineOptions) -> None:
        with Folder.open(path) as folder:
            self._vocab_size = folder.spec.vocab_size
            self._engine = Engine.start(folder, options)
        self.plan = plan_of(self._engine.lineup)

    def measure(self, work: Work) -> dict[str, Any]:
        """One sample; see ``protocol``."""
        params = SamplingParams(temperature=0, max_tokens=work.new_tokens)
        requests = [
            Request(tokens=tuple(prompt), params=params, choice=0)
            for prompt in work.prompts(self._vocab_size)
        ]
        before = self._engine.statistics()
        begun = time.perf_counter()
        results = self._engine.generate(requests, reuse=work.keep)
        seconds = time.perf_counter() - begun
        after = self._engine.statistics()
        timings = [result.timing for result in results]
        bill = make_bill(self._engine.split, before, after, timings)
        # Streams start one after the other and decode together: the last one has all beside it.
        prefill = max(timing.prefill for timing in timings)
        computed = sum(timing.prompt_tokens - timing.reused_tokens for timing in timings)
        return {
            "prefill_tokens_per_s": computed / prefill,
            "decode_tokens_per_s": timings[-1].decode_tokens_per_s * work.streams,
            "answer_tokens_per_s": sum(len(result.tokens) for result in results) / seconds,
            "bill": bill.to_json(),
            "exchanges": after[0].decode["exchanges"] - before[0].decode["exchanges"],
            "steps": after[0].decode["steps"] - before[0].decode["steps"],
            "barriers": after[0].decode.get("barriers"),
            "wire_bytes_per_token": bill.wire_bytes,
            "weight_bytes_by_node": bill.weight_bytes,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder in Hugging Face layout")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--shares", default="", help="one for each node; default equal")
    parser.add_argument("--stages", type=int, default=1)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--format", default="q4")
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--emulate-link", default="")
    parser.add_argument("--hosts", default="")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--no-encrypt", action="store_true")
    arguments = parser.parse_args()

    def make() -> tuple[dict[str, Any], Callable[[Work], dict[str, Any]]]:
        hosts = tuple(filter(None, arguments.hosts.split(",")))
        options = EngineOptions(
            shares=tuple(map(Fraction, filter(None, arguments.shares.split(","))))
            or (Fraction(1),) * (len(hosts) or arguments.nodes),
            stages=arguments.stages,
            emulate=emulated_link(arguments.emulate_link) if arguments.emulate_link else None,
            hosts=hosts,
            secret=read_secret(arguments.token_file) if arguments.token_file else None,
            encryption=NEVER if arguments.no_encrypt else AUTO,
            threads=arguments.threads,
            run=RunOptions(
                weight_format=arguments.format,
                context=arguments.context,
                streams=arguments.streams,
            ),
            cache=True,
            cache_folder=str(read_environment().cache or ""),
        )
        peer = Bandweave(arguments.model, options)
        description = {
            "engine": "bandweave",
            "bandweave": __version__,
            "numerics_version": NUMERICS_VERSION,
            "plan": peer.plan,
        }
        return description, peer.measure

    serve(make)


if __name__ == "__main__":
    main()
