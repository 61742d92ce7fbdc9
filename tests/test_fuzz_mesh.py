"""Short runs of the attacks on ports, control channels and encrypted connections; longer ones are
commands."""

from __future__ import annotations

import pytest

from tests.fuzz import control, door, handshake, sealed


@pytest.mark.timeout(300)
def test_a_worker_holds_against_strangers() -> None:
    found = handshake.run(inputs=600, seed=1)
    assert sum(found["outcomes"].values()) == 660
    assert found["sessions"] == 3


@pytest.mark.timeout(300)
def test_a_node_holds_against_its_controller() -> None:
    found = control.run(inputs=250, seed=1)
    assert sum(found["outcomes"].values()) == 250
    assert found["outcomes"]["failed: mistake"] > 50
    assert any(outcome.startswith("over after") for outcome in found["outcomes"])


def test_encrypted_connections_hold_before_and_after_a_proof() -> None:
    found = sealed.run(inputs=3000, seed=1)
    outcomes = found["outcomes"]
    assert sum(outcomes.values()) == 3000
    assert sum(n for what, n in outcomes.items() if "refused" in what) > 400
    assert outcomes["altered_records: ChannelTampered"] > 200


@pytest.mark.timeout(300)
def test_a_door_holds_against_strangers_and_members() -> None:
    found = door.run(inputs=300, seed=1)
    outcomes = found["outcomes"]
    assert sum(outcomes.values()) == 360
    assert sum(n for what, n in outcomes.items() if what.startswith("member: ")) == 180
    assert found["lines_of_log"] > 10  # some have joined, and gone
