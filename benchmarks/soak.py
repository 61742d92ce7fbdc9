"""``python -m benchmarks.soak``: hours of a server in minutes; not figures, but whether it lasts.

``soak`` keeps a server busy with all that clients do and looks whether memory, descriptors or
threads grow. ``overload`` asks four times what it can do. ``leavers`` hangs up in all places. Each
starts the demo model on one node, and ends with status 1 where the server fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bandweave.hub.resolve import resolve_model
from benchmarks.caller import Cut, Heard, ask
from benchmarks.contestant import ROOT
from benchmarks.crowd import plain_question, question
from benchmarks.rounds import say
from benchmarks.vitals import Vitals, family, slope, vitals

_LOOK_SECONDS = 10.0
_SETTLED_SECONDS = 300.0  # until then, caches fill
_MOST_MIB_A_MINUTE = 1.0
_WELL = {200, 429, 503}
_NEW_TOKENS = 32
_TOOLS = (
    "{%- if tools %}{{- '<|user|><tool_call>' }}"
    "{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}{{- '<|end|>' }}{%- endif %}"
)


@contextmanager
def _server(*options: str) -> Iterator[tuple[int, int]]:
    """The port and the process of a server of the demo model."""
    with tempfile.TemporaryDirectory() as holder:
        command = [
            sys.executable, "-m", "bandweave", "serve", str(_with_tools(Path(holder))), "--nodes",
            "1", "--threads", "1", "--listen", "127.0.0.1:0", "--any-model", "--json", *options,
        ]  # fmt: skip
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            said = "".join(iter(process.stdout.readline, "}\n")) + "}"
            yield urlsplit(json.loads(said)["base_url"]).port or 0, process.pid
        finally:
            process.terminate()
            process.wait(30)


def _with_tools(holder: Path) -> Path:
    """The demo model with a chat template that knows tools, as its own does not."""
    demo, folder = resolve_model("demo"), holder / "demo"
    shutil.copytree(demo, folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = config["chat_template"].replace(
        "{%- for message", _TOOLS + "{%- for message", 1
    )
    path.write_text(json.dumps(config))
    return folder


def _status(port: int) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status", timeout=30) as answer:
        return json.load(answer)


def _cut(random: random.Random, bytes_sent: int) -> Cut:
    """Anywhere: in the request, while it waits or is read, in the midst of the answer."""
    reset = random.random() < 0.5
    if random.random() < 0.3:
        return Cut(sent=random.randrange(bytes_sent), seconds=random.random() * 0.1, reset=reset)
    if random.random() < 0.5:
        return Cut(sent=1 << 30, seconds=random.random() * 1.5, reset=reset)
    return Cut(heard=random.randrange(1, 3000), seconds=random.random() * 0.2, reset=reset)


# --- soak ---


class _Soak:
    """``width`` clients that ask one question after the other, and hang up on some."""

    def __init__(self, port: int, pid: int, width: int) -> None:
        self._port, self._pid, self._width = port, pid, width
        self.seen: dict[int, list[tuple[float, Vitals]]] = {}
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        looking = asyncio.create_task(self._look())
        clients = [self._client(random.Random(seed), end) for seed in range(self._width)]
        await asyncio.gather(*clients)
        looking.cancel()
        await asyncio.wait((looking,))
        if not looking.cancelled():
            looking.result()

    async def _client(self, draw: random.Random, end: float) -> None:
        while time.monotonic() < end:
            asked = question(draw)
            cut = _cut(draw, len(asked.body) + 100) if draw.random() < 0.25 else None
            try:
                heard = await ask(self._port, asked, cut)
            except (OSError, TimeoutError) as error:
                self._fault(f"{asked.kind}: {error!r}")
                await asyncio.sleep(1)
                continue
            self.counts["cut" if cut else str(heard.status)] += 1
            if cut is not None:
                continue
            if heard.status != 200 or not heard.ended or b'"server_error"' in heard.content:
                self._fault(f"{asked.kind}: {heard.status}: {heard.content[-500:]!r} "
                            f"to {asked.body!r}")  # fmt: skip

    def _fault(self, text: str) -> None:
        self.faults.append(text)
        if len(self.faults) <= 20:
            say(text)

    async def _look(self) -> None:
        begun = time.monotonic()
        while True:
            now = time.monotonic() - begun
            for one in family(self._pid):
                try:
                    self.seen.setdefault(one, []).append((now, vitals(one)))
                except OSError:
                    continue  # it has just ended
            if len(self.seen[self._pid]) % 6 == 1:
                alive = [(one, looks[-1]) for one, looks in self.seen.items()]
                last = "; ".join(f"{one}: {look}" for one, (at, look) in alive if at == now)
                say(f"{now:.0f} s, {dict(self.counts)}; {last}")
            await asyncio.sleep(_LOOK_SECONDS)

    def slopes(self) -> dict[int, tuple[float, float, float]]:
        """Of every process, MiB, descriptors and threads a minute, once it has settled."""
        found = {}
        for pid, looks in self.seen.items():
            settled = [look for look in looks if look[0] >= _SETTLED_SECONDS] or looks
            if len(settled) < 3:  # it was there for a moment
                continue
            at = [seconds for seconds, _ in settled]
            found[pid] = (
                slope(at, [one.mib for _, one in settled]),
                slope(at, [one.descriptors for _, one in settled]),
                slope(at, [one.threads for _, one in settled]),
            )
        return found


def soak(minutes: float, width: int) -> bool:
    with _server("--streams", str(width), "--context", "1024") as (port, pid):
        run = _Soak(port, pid, width)
        asyncio.run(run.run(minutes * 60))
        fine = not run.faults and _is_idle(port)
        for process, (mib, descriptors, threads) in run.slopes().items():
            print(f"process {process}: {mib:+.3f} MiB, {descriptors:+.3f} descriptors and "
                  f"{threads:+.3f} threads a minute")  # fmt: skip
            fine = fine and mib < _MOST_MIB_A_MINUTE
        print(f"{dict(run.counts)}; {len(run.faults)} faults")
    return fine


def _is_idle(port: int, seconds: float = 5.0) -> bool:
    """Whether nothing goes on, within some seconds."""
    deadline = time.monotonic() + seconds
    while True:
        status = _status(port)
        left = {
            "running": status["running"], "waiting": status["waiting"],
            "queued requests": status["queued_requests"], "streams": len(status["streams"]),
            "pages": status["pages_used"],
        }  # fmt: skip
        if not any(left.values()):
            return True
        if time.monotonic() > deadline:
            print(f"left after {seconds:.0f} s: {left}")
            return False
        time.sleep(0.1)


# --- overload ---


def overload(minutes: float, width: int) -> bool:
    """Four times as many clients as there are places, who come again when they are told to."""
    options = ("--streams", str(width), "--context", "256", "--queue", "16")
    with _server(*options) as (port, _):
        seconds = minutes * 60
        before = asyncio.run(_press(port, width, seconds / 4))
        under = asyncio.run(_press(port, 4 * width, seconds))
        since = time.monotonic()
        normal = _is_idle(port)
        heard = asyncio.run(ask(port, plain_question(0, 4)))
        recovered = time.monotonic() - since
        after = asyncio.run(_press(port, width, seconds / 4))
    best = max(_speed(before), _speed(after))
    share = _speed(under) / best
    statuses = Counter(one.status for one in under)
    waits = [one.retry_after for one in under if one.retry_after is not None]
    print(f"{best:.0f} tokens/s at width {width}; {_speed(under):.0f} with {4 * width} clients, "
          f"{share:.2f} of it; {dict(statuses)}; normal again after {recovered:.1f} s")  # fmt: skip
    if waits:
        print(f"Retry-After: median {statistics.median(waits):.1f} s of {len(waits)}")
    return normal and heard.status == 200 and set(statuses) <= _WELL and share >= 0.95


async def _press(port: int, clients: int, seconds: float) -> list[Heard]:
    end = time.monotonic() + seconds
    heard: list[Heard] = []

    async def client(number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < end:
            one = await ask(port, plain_question(draw.randrange(1 << 30), _NEW_TOKENS))
            heard.append(one)
            if one.retry_after is not None:
                await asyncio.sleep(min(one.retry_after, max(0.0, end - time.monotonic())))

    await asyncio.gather(*(client(number) for number in range(clients)))
    return heard


def _speed(all: list[Heard]) -> float:
    """Tokens per second, while all clients asked."""
    served = [one for one in all if one.status == 200]
    return sum(one.tokens for one in served) / (
        max(one.last for one in served) - min(one.asked for one in served)
    )


# --- leavers ---


def leavers(count: int, width: int) -> bool:
    """So many clients that hang up."""
    with _server("--streams", str(width), "--context", "1024") as (port, pid):
        before = vitals(pid)
        asyncio.run(_leave(port, count, 4 * width))
        fine = _is_idle(port)
        heard = asyncio.run(ask(port, plain_question(0, 4)))
        print(f"{count} clients hung up; before {before}, after {vitals(pid)}")
    return fine and heard.status == 200


async def _leave(port: int, count: int, at_a_time: int) -> None:
    places = asyncio.Semaphore(at_a_time)

    async def leaver(seed: int) -> None:
        draw = random.Random(seed)
        asked = question(draw)
        async with places:
            await ask(port, asked, _cut(draw, len(asked.body) + 100))

    await asyncio.gather(*(leaver(seed) for seed in range(count)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("trial", choices=("soak", "overload", "leavers"))
    parser.add_argument("--minutes", type=float, help="Default: 30 of soak, 5 of overload.")
    parser.add_argument("--width", type=int, default=16, help="Answers at a time.")
    parser.add_argument("--count", type=int, default=2000, help="Of leavers.")
    given = parser.parse_args()
    if given.trial == "soak":
        fine = soak(given.minutes or 30.0, given.width)
    elif given.trial == "overload":
        fine = overload(given.minutes or 5.0, given.width)
    else:
        fine = leavers(given.count, given.width)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
