"""``bandweave doctor``: what this machine has and what it lacks. Knows no models."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any

import click

from bandweave import NUMERICS_VERSION, __version__
from bandweave.cli import output
from bandweave.cli.options import json_option
from bandweave.environment import read_environment
from bandweave.host import darwin

_PACKAGES = ("click", "jinja2", "numpy", "rich", "tokenizers")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_QUICK_BYTES = 256 << 20
_LITTLE_MEMORY = 2e9
_SLOW_VARIANTS = ("portable",)
_UNTRIED = {"Darwin": "compiled for macOS, not yet run there"}  # by system


@click.command("doctor", short_help="Say what this machine has and lacks.")
@click.argument("model", required=False)
@click.option("--bandwidth/--no-bandwidth", default=True,
              help="Measure how fast the memory is read, which takes a second.")  # fmt: skip
@click.option(
    "--verify",
    is_flag=True,
    help="Check that every kernel variant computes the very bits that it must. With MODEL: read "
    "all of it, compare it with what is known of it, and write down what it holds.",
)
@json_option
def command(model: str | None, bandwidth: bool, verify: bool, as_json: bool) -> None:
    """Says what this machine offers to bandweave, what is missing, and how to mend it.

    `doctor --verify MODEL` reads all of a model's files. It compares them with the hashes that the
    model hub gave for them and with `bandweave.manifest.json` in their folder, where there are
    some, and writes that manifest, which every later start on this machine compares with.

    The exit status is 1 where bandweave cannot run here, or where --verify finds a difference.
    """
    if model is not None and not verify:
        raise click.UsageError("MODEL is for --verify, which reads all of it")
    found, lacks = _examine()
    found["model"] = None
    if model is not None:
        from bandweave.cli.verify_model import verify_model

        found["model"] = verify_model(model, lacks)
    if verify and found["isa_variants"]:
        found["verified"] = _verify(found["isa_variants"], lacks)
    if bandwidth and found["isa_variants"]:
        found["read_bandwidth_gb_s"] = _bandwidth(len(found["cpus"]))
    found["lacks"] = lacks
    fatal = any(lack["fatal"] for lack in lacks)
    found["can_run"] = not fatal
    if as_json:
        output.print_json(found)
    else:
        _print(found)
    if fatal or (found["model"] and found["model"]["damaged"]):
        raise click.exceptions.Exit(1)


def _examine() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What was found, and what is missing with the way to mend it."""
    lacks: list[dict[str, Any]] = []

    def lack(what: str, mend: str, *, fatal: bool = False) -> None:
        lacks.append({"what": what, "mend": mend, "fatal": fatal})

    packages = {name: _version(name) for name in _PACKAGES}
    for name, version in packages.items():
        if version is None:
            lack(f"the package {name} is missing", f"pip install {name}", fatal=True)
    variants = _isa_variants()
    if not variants:
        mend = (
            "install a C++ compiler (Debian, Ubuntu: apt install g++ python3-dev), then pip "
            "install --force-reinstall bandweave, for this Python; `bandweave plan` works without"
        )
        lack("the native module cannot be loaded", mend, fatal=True)
    elif variants[0] in _SLOW_VARIANTS:
        lack("no fast kernels for this processor", "nothing; it runs, only slowly")
    chosen = read_environment().isa
    if chosen and chosen not in variants:
        lack(f"BANDWEAVE_ISA is {chosen}, which cannot run here", "unset it", fatal=True)
    huge_pages = _huge_pages()
    if huge_pages == "never":
        lack("the kernel gives no huge pages, which costs some speed",
             f"echo madvise | sudo tee {_HUGE_PAGES}")  # fmt: skip
    demo = _has_demo_model()
    if not demo:
        lack("the demo model is not installed", "pip install --force-reinstall bandweave")
    total, available, cpus = _memory_and_cpus() if variants else (None, None, ())
    if available is not None and available < _LITTLE_MEMORY:
        lack(f"only {output.size(available)} of memory are free", "end other programs")
    numa = _numa_nodes() if variants else []
    if len(numa) > 1:
        lack(f"memory is in {len(numa)} parts, each fast for its own processors only",
             f"--nodes {len(numa)}: every node then keeps its share in one part")  # fmt: skip
    quota = _cpu_quota() if variants else None
    return {
        "bandweave": __version__,
        "numerics_version": NUMERICS_VERSION,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "port": _UNTRIED.get(platform.system()),
        "packages": packages,
        "processor": _processor(),
        "cpus": list(cpus),
        "cpu_quota": quota,
        "numa_nodes": numa,
        "isa_variants": variants,
        "isa": chosen or (variants[0] if variants else None),
        "memory_total_bytes": total,
        "memory_available_bytes": available,
        "transparent_huge_pages": huge_pages,
        "demo_model": demo,
        "read_bandwidth_gb_s": None,
        "verified": None,
    }, lacks


def _verify(variants: list[str], lacks: list[dict[str, Any]]) -> dict[str, Any]:
    """By variant, which kernels give the stored digests; a difference is a fatal lack."""
    from bandweave.executors.verification import verify_kernels

    found: dict[str, Any] = {}
    for isa in variants:
        result = verify_kernels(isa)
        found[isa] = {"same": not result.different, "kernels": list(result.kernels),
                      "different": list(result.different)}  # fmt: skip
        if result.different:
            what = f"kernels of {isa} compute other bits than they must: " + ", ".join(
                result.different
            )
            mend = "don't use this machine with others; build bandweave again, and check memory"
            lacks.append({"what": what, "mend": mend, "fatal": True})
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _isa_variants() -> list[str]:
    """The kernel variants that this processor can run; none where the module is missing."""
    try:
        from bandweave import _native
    except ImportError:
        return []
    return list(_native.isa_variants())


def _memory_and_cpus() -> tuple[int | None, int | None, tuple[int, ...]]:
    from bandweave.host import machine

    return machine.total_memory_bytes(), machine.available_memory_bytes(), machine.usable_cpus()


def _numa_nodes() -> list[list[int]]:
    from bandweave.host import machine

    return [list(cpus) for cpus in machine.numa_nodes()]


def _cpu_quota() -> float | None:
    from bandweave.host import machine

    return machine.cpu_quota()


def _processor() -> str:
    if name := darwin.processor_name():
        return name
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    name = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine()


def _huge_pages() -> str | None:
    """``"always"``, ``"madvise"`` or ``"never"``; None where the system has no such switch."""
    try:
        chosen = re.search(r"\[(\w+)\]", _HUGE_PAGES.read_text())
    except OSError:
        return None
    return chosen[1] if chosen else None


def _has_demo_model() -> bool:
    try:
        from bandweave.checkpoints.resolve import demo_folder

        demo_folder()
    except (ImportError, ValueError):
        return False
    return True


def _bandwidth(num_cpus: int) -> dict[str, float]:
    """GB/s by number of threads: 1, 2, 4 ... and all."""
    from bandweave.cli.bandwidth import read_bandwidth

    threads = [1]
    while threads[-1] * 2 < num_cpus:
        threads.append(threads[-1] * 2)
    if num_cpus > 1:
        threads.append(num_cpus)
    found = read_bandwidth(threads, total_bytes=_QUICK_BYTES, rounds=3)
    return {str(n): round(value / 1e9, 2) for n, value in zip(threads, found, strict=True)}


def _cpu_words(found: dict[str, Any]) -> str:
    words = [found["processor"], output.count(len(found["cpus"]), "usable CPU")]
    if found["cpu_quota"] is not None:
        words.append(f"a quota of {found['cpu_quota']:.3g}")
    if len(found["numa_nodes"]) > 1:
        words.append(f"{len(found['numa_nodes'])} memory nodes")
    return ", ".join(words)


def _print(found: dict[str, Any]) -> None:
    total, available = found["memory_total_bytes"], found["memory_available_bytes"]
    memory = "unknown"
    if total is not None:
        free = "" if available is None else f", {output.size(available)} available"
        memory = f"{output.size(total)}{free}"
    variants = found["isa_variants"]
    used = f"{', '.join(variants)}; used: {found['isa']}" if variants else "none"
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    pairs = [
        ("bandweave", f"{found['bandweave']} (numerics version {found['numerics_version']})"),
        ("Python", f"{found['python']} on {found['system']}"),
        *((("port", found["port"]),) if found["port"] else ()),
        ("packages", packages),
        ("processor", _cpu_words(found)),
        ("kernels", used),
        ("memory", memory),
        ("huge pages", found["transparent_huge_pages"] or "unknown"),
        ("demo model", "installed" if found["demo_model"] else "missing"),
    ]
    if found["verified"]:
        words = (f"{isa} {'same' if one['same'] else 'DIFFERENT'}"
                 for isa, one in found["verified"].items())  # fmt: skip
        pairs.append(("verified bits", ", ".join(words)))
    if found["model"]:
        from bandweave.cli.verify_model import model_words

        pairs.append(("model", model_words(found["model"])))
    if bandwidth := found["read_bandwidth_gb_s"]:
        words = (f"{output.count(int(n), 'thread')} {gbs:.1f}" for n, gbs in bandwidth.items())
        pairs.append(("memory reads", f"GB/s: {', '.join(words)}"))
    output.print_pairs(pairs)
    print()
    if not found["lacks"]:
        print("Nothing is missing. Try `bandweave demo`.")
    for lack in found["lacks"]:
        print(f"- {lack['what']}\n  mend: {lack['mend']}")
