"""Attacks on encrypted connections: handshakes and records that are almost right.

``python -m tests.fuzz.sealed --inputs N --seed S`` gives N of them to acceptors, connectors,
channels and streams of this process, half before a proof and half after one, and prints what became
of them. Anything but a refusal or the beginning of what was really said fails the run: a message
that nobody sent, an error that nobody foresaw, a wait.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from bandweave.handshake.acceptance import Acceptance
from bandweave.handshake.handshake import HandshakeError
from bandweave.handshake.handshake_messages import prologue, read_sealed, sealed_message
from bandweave.handshake.hello import PROTOCOL_VERSION, Hello
from bandweave.handshake.noise import Noise, NoiseError
from bandweave.handshake.secret import make_secret, shared_key
from bandweave.mesh.channel import Channel, ChannelError
from bandweave.mesh.sealing import Keys, Sealer
from bandweave.mesh.stream import Stream
from tests.fuzz.command import command
from tests.fuzz.mutations import Mutator, text_of
from tests.helpers.connections import SECRET, framed, hello

_KEY, _OTHER = b"k" * 32, b"o" * 32
_MESSAGES = [{"type": "submit", "number": n, "fill": "x" * (n * 37)} for n in range(4)]
_SLOWEST = 2.0  # seconds for one input


class Attack:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.mutator = Mutator(seed)
        self.random = self.mutator.random
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0
        self._shared = shared_key(SECRET)
        self._recorded = self._record()

    def once(self, kind: Callable[[Attack], str]) -> None:
        began = time.monotonic()
        self.outcomes[f"{kind.__name__}: {kind(self)}"] += 1
        self.slowest = max(self.slowest, time.monotonic() - began)

    # --- before a proof ---

    def _initiator(self, shared: bytes | None = None) -> Noise:
        return Noise(shared or self._shared, prologue(PROTOCOL_VERSION), initiator=True)

    def _record(self) -> list[bytes]:
        """What a connector says in a good handshake, as it travels."""
        return [framed(text_of(sealed_message("hello", PROTOCOL_VERSION, self._initiator(),
                                              hello())))]  # fmt: skip

    def _accept(self, data: bytes, *more: bytes) -> str:
        """What an acceptor makes of it. It never takes anybody in."""
        admitted: list[Hello] = []

        def admit(theirs: Hello) -> None:
            admitted.append(theirs)

        ours, theirs = socket.socketpair()
        acceptance = Acceptance(ours, SECRET, lambda: hello(node=0), admit, peer="a stranger")
        with contextlib.closing(acceptance), theirs:
            try:
                for piece in (data, *more):
                    theirs.sendall(piece)
                    assert acceptance.advance() is None, "a stranger was taken in"
                return "waits"
            except HandshakeError as error:
                return "refused" if "secret" in str(error) else "dropped"
            finally:
                assert not admitted, "a stranger was believed"

    def altered_hello_bytes(self) -> str:
        changed = self.mutator.bytes(self._recorded[0], self.random.randrange(1, 6))
        if changed == self._recorded[0]:
            return "unchanged"
        # A change of what the seal does not cover may leave a hello good; it is not confirmed.
        return self._accept(changed, framed(b'{"type":"confirm"}'))

    def altered_hello(self) -> str:
        message = sealed_message("hello", PROTOCOL_VERSION, self._initiator(), hello())
        mutated = self.mutator.json(message, self.random.randrange(1, 3))
        return self._accept(framed(text_of(mutated)))

    def replayed_hello(self) -> str:
        """With something in the place of a confirmation that only its maker could give."""
        sealed = Sealer(self.random.randbytes(32)).seal(framed(b'{"type":"confirm"}'))
        return self._accept(self._recorded[0], self.mutator.bytes(sealed, 1))

    def other_secret(self) -> str:
        noise = self._initiator(shared_key(make_secret()))
        return self._accept(
            framed(text_of(sealed_message("hello", PROTOCOL_VERSION, noise, hello())))
        )

    def odd_insider(self) -> str:
        """Knows the secret, and says odd things of itself."""
        noise = self._initiator()
        said = self.mutator.json(vars(hello()), self.random.randrange(1, 4))
        text = self.mutator.bytes(text_of(said), 1) if self.random.random() < 0.2 else text_of(said)
        message = noise.write(text[:1500])
        public, rest = message[:32].hex(), message[32:].hex()
        first = {"type": "hello", "protocol": PROTOCOL_VERSION, "nonce": public, "sealed": rest}
        return self._accept(framed(text_of(first)))

    def altered_challenge(self) -> str:
        """What a connector makes of it."""
        ours = self._initiator()
        first = sealed_message("hello", PROTOCOL_VERSION, ours, hello())
        theirs = Noise(self._shared, prologue(PROTOCOL_VERSION), initiator=False)
        assert read_sealed(first, theirs, "x") == hello()
        answer = sealed_message("challenge", PROTOCOL_VERSION, theirs, hello(node=0))
        sealed = bytearray.fromhex(f"{answer['nonce']}{answer['sealed']}")
        changed = self.mutator.bytes(bytes(sealed), self.random.randrange(1, 4))
        if changed == bytes(sealed):
            return "unchanged"
        message = {**answer, "nonce": changed[:32].hex(), "sealed": changed[32:].hex()}
        try:
            read_sealed(message, ours, "x")
        except (NoiseError, ChannelError):
            return "refused"
        raise AssertionError("an altered challenge was believed")

    # --- after one ---

    def altered_records(self) -> str:
        """Of a channel: flipped, cut, repeated, swapped, mixed with those of others."""
        sealer, other = Sealer(_KEY), Sealer(_OTHER)
        pieces = [sealer.seal(framed(text_of(message))) for message in _MESSAGES]
        how = self.random.randrange(5)
        if how == 0:
            data = self.mutator.bytes(b"".join(pieces), self.random.randrange(1, 4))
        else:
            at = self.random.randrange(len(pieces))
            if how == 1:
                pieces.insert(at, self.random.choice(pieces))
            elif how == 2:
                del pieces[at]
            elif how == 3:
                self.random.shuffle(pieces)
            else:
                pieces[at] = other.seal(framed(text_of(_MESSAGES[at])))
            data = b"".join(pieces)
        return self._hear(data)

    def _hear(self, data: bytes) -> str:
        ours, theirs = socket.socketpair()
        channel = Channel(ours, "a peer", keys=Keys(send=_OTHER, receive=_KEY))
        heard: list[dict[str, Any]] = []
        with contextlib.closing(channel), theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            try:
                while True:
                    heard.append(channel.receive(_SLOWEST))
            except ChannelError as error:
                outcome = type(error).__name__
        assert heard == _MESSAGES[: len(heard)], "a message that nobody sent"
        return outcome if len(heard) < len(_MESSAGES) else "whole"

    def altered_stream(self) -> str:
        content = self.random.randbytes(self.random.randrange(1, 40_000))
        data = self.mutator.bytes(Sealer(_KEY).seal(content), self.random.randrange(1, 4))
        ours, theirs = socket.socketpair()
        with Stream(ours, Keys(send=_OTHER, receive=_KEY)) as stream, theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            stream.settimeout(_SLOWEST)
            got = b""
            try:
                while len(got) < len(content):
                    got += bytes(stream.receive(1 if len(got) < 9 else len(content) - len(got)))
                outcome = "whole"
            except ConnectionError as error:
                outcome = type(error).__name__
        assert got == content[: len(got)], "bytes that nobody sent"
        return outcome

    def sound_records_of_odd_things(self) -> str:
        """From somebody who has the keys."""
        sealer = Sealer(_KEY)
        text = text_of(self.mutator.json(_MESSAGES[2], 2))
        frame = self.mutator.bytes(framed(text), self.random.randrange(0, 3))
        ours, theirs = socket.socketpair()
        channel = Channel(ours, "a peer", keys=Keys(send=_OTHER, receive=_KEY))
        with contextlib.closing(channel), theirs:
            cut = self.random.randrange(len(frame) + 1)
            for piece in (frame[:cut], frame[cut:]):
                theirs.sendall(sealer.seal(piece))
            theirs.shutdown(socket.SHUT_WR)
            try:
                while isinstance(channel.receive(_SLOWEST), dict):
                    pass
            except ChannelError as error:
                return type(error).__name__
        raise AssertionError("a message that is no object")


BEFORE: tuple[Callable[[Attack], str], ...] = (
    Attack.altered_hello_bytes,
    Attack.altered_hello,
    Attack.replayed_hello,
    Attack.other_secret,
    Attack.odd_insider,
    Attack.altered_challenge,
)
AFTER: tuple[Callable[[Attack], str], ...] = (
    Attack.altered_records,
    Attack.altered_stream,
    Attack.sound_records_of_odd_things,
)


def run(inputs: int, seed: int) -> dict[str, Any]:
    """What became of the inputs. ``AssertionError`` where one was believed, or took too long."""
    began, attack = time.monotonic(), Attack(seed)
    for number in range(inputs):
        attack.once(attack.random.choice(AFTER if number % 2 else BEFORE))
    assert attack.slowest < _SLOWEST, attack.slowest
    return {
        "inputs": inputs,
        "outcomes": dict(sorted(attack.outcomes.items())),
        "slowest_s": round(attack.slowest, 3),
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    command(run, __doc__)
