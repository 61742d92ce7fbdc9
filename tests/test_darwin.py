"""What macOS says of a machine, in the form that its commands print; no Mac is needed."""

from __future__ import annotations

import os
import select
import sys
import types
from pathlib import Path

import pytest

from bandweave.cli import doctor
from bandweave.host import darwin, machine
from bandweave.nodes import lifeline

# The commands' form as Apple's manuals and users show it; numbers of a machine with 16 GB.
SYSCTL = """\
hw.perflevel0.physicalcpu: 4
hw.perflevel0.l2cachesize: 12582912
hw.l2cachesize: 4194304
hw.memsize: 17179869184
machdep.cpu.brand_string: Apple M1
"""
INTEL = """\
hw.l2cachesize: 262144
hw.l3cachesize: 12582912
hw.memsize: 34359738368
machdep.cpu.brand_string: Intel(R) Core(TM) i7-8850H CPU @ 2.60GHz
"""
VM_STAT = """\
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                              123456.
Pages active:                            389012.
Pages inactive:                          345678.
Pages speculative:                        12345.
Pages throttled:                              0.
Pages wired down:                        134567.
Pages purgeable:                           5678.
"Translation faults":                  98765432.
Pages copy-on-write:                     345678.
"""


def test_sysctl_is_read() -> None:
    values = darwin.parse_sysctl(SYSCTL)
    assert darwin.fast_cores(values) == 4
    assert darwin.total_memory_bytes(values) == 16 << 30
    assert darwin.cache_bytes(values) == 12 << 20
    assert darwin.processor_name(values) == "Apple M1"


def test_a_machine_with_one_kind_of_cores_has_no_fast_ones() -> None:
    values = darwin.parse_sysctl(INTEL)
    assert darwin.fast_cores(values) is None
    assert darwin.cache_bytes(values) == 12 << 20
    assert darwin.processor_name(values) == "Intel(R) Core(TM) i7-8850H CPU @ 2.60GHz"


def test_free_memory_is_read() -> None:
    pages = 123456 + 345678 + 12345
    assert darwin.parse_available_bytes(VM_STAT) == pages * 16384


@pytest.mark.parametrize(
    "text", ["", "nonsense", VM_STAT.replace("Pages free", "x"), VM_STAT.replace("16384", "?")]
)
def test_what_is_no_number_is_unknown(text: str) -> None:
    assert darwin.parse_available_bytes(text) is None
    values = darwin.parse_sysctl(text) | {"hw.memsize": "many", "hw.perflevel0.physicalcpu": "0"}
    assert darwin.total_memory_bytes(values) is None
    assert darwin.fast_cores(values) is None
    assert darwin.cache_bytes(values) == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="of other systems")
def test_other_systems_say_nothing() -> None:
    assert darwin.available_memory_bytes() is None
    assert darwin.total_memory_bytes() is None
    assert darwin.processor_name() is None


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Mac with ten cores, four of them fast, as far as ``machine`` can tell."""
    values = darwin.parse_sysctl(SYSCTL)
    printed = {"/usr/sbin/sysctl": SYSCTL, "/usr/bin/vm_stat": VM_STAT}
    monkeypatch.setattr(darwin, "_sysctl", lambda: values)
    monkeypatch.setattr(darwin, "_output", lambda command, *names: printed[command])
    monkeypatch.setattr(machine, "_meminfo", lambda name: None)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    monkeypatch.setattr(machine.control_groups, "memory_limits", list)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr(machine, "_NUMA", Path("/not/of/this/system"))


def test_a_mac_is_described(mac: None) -> None:
    assert machine.allowed_cpus() == tuple(range(10))
    assert machine.usable_cpus() == (0, 1, 2, 3)
    assert machine.total_memory_bytes() == 16 << 30
    assert machine.available_memory_bytes() == (123456 + 345678 + 12345) * 16384
    assert machine.numa_nodes() == (tuple(range(10)),)


def test_doctor_says_that_macos_is_untried(mac: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = doctor._examine()
    assert found["port"] is None
    monkeypatch.setattr(doctor.platform, "system", lambda: "Darwin")
    found, _ = doctor._examine()
    assert found["port"] == "compiled for macOS, not yet run there"
    assert found["processor"] == "Apple M1"


# --- a process ends with its parent, by kqueue ---


class Ended(Exception):
    """In the place of the process's end."""


@pytest.mark.parametrize("parent", ["ends", "has gone", "is another"])
def test_a_process_ends_with_its_parent(parent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    class Queue:
        def control(self, events: list[object] | None, most: int, timeout: float | None) -> None:
            if events is None:
                waits.append(timeout)
            elif parent == "has gone":
                raise ProcessLookupError

    names = {"KQ_FILTER_PROC": 1, "KQ_EV_ADD": 2, "KQ_EV_ONESHOT": 4, "KQ_NOTE_EXIT": 8}
    for name, value in names.items():
        monkeypatch.setattr(select, name, value, raising=False)
    monkeypatch.setattr(select, "kqueue", Queue, raising=False)
    monkeypatch.setattr(
        select, "kevent", lambda ident, **what: types.SimpleNamespace(**what), raising=False
    )

    def end(status: int) -> None:
        assert status == lifeline.HANGUP_STATUS
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended):
        lifeline._end_with(os.getppid() + (parent == "is another"))
    assert waits == ([None] if parent == "ends" else [])
