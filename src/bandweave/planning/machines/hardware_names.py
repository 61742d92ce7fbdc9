"""What people call machines and cards: spellings of the catalogue's names. Pure but for data.

Most spellings follow from a name and its kind: makers, families and channels may be left out of it
(``9575f`` is ``epyc-9575f-12ch``). What does not follow, as that a Framework Desktop is a Strix
Halo, is in ``data/machine_names.csv``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from bandweave.matching import Matcher, Named
from bandweave.planning.machines.tables import Row, rows

#: Words of a kind that may stand beside its names, or be left out of them.
_NVIDIA = "nvidia geforce rtx gtx founders gddr6 gddr6x gddr7 blackwell ampere"
_AMD = "amd radeon instinct rx pro gddr6 hbm2 rdna2 rdna3 rdna4"
_PROCESSORS = (
    "amd epyc intel xeon gold platinum silver scalable plus tr threadripper pro core ultra ryzen "
    "i3 i5 i7 i9 3 5 7 9 e5 w3 w5 w7 w9 ampere aws ddr3 ddr4 ddr5 mrdimm genoa turin milan rome "
    "naples single one socket 1s sp3 sp5 dimms"
)
_BESIDE: Mapping[str, str] = {
    "apple": "apple mac studio mini mac_pro macbook macbook_pro macbook_air imac chip "
    "macbook_pro_14 macbook_pro_16 macbook_air_13 macbook_air_15 13inch 14inch 15inch 16inch",
    "geforce": _NVIDIA,
    "nvidia-pro": f"{_NVIDIA} quadro tesla workstation edition pcie",
    "nvidia-dc": "nvidia tesla hgx dgx sxm sxm2 sxm4 sxm5 hbm2 hbm2e hbm3 hbm3e",
    "radeon": _AMD,
    "instinct": f"{_AMD} intel habana oam",
    "arc": "intel arc pro",
    "cpu-server": _PROCESSORS,
    "cpu-desktop": _PROCESSORS,
    "gb10": "nvidia",
    "apu": "amd intel ryzen core ultra ai 5 7 9",
}
_PASSED_OVER = (
    "gpu gpus card cards graphics vram ram memory unified machine machines box server servers "
    "computer host system node nodes with of the a an and in on cpu cpus processor processors soc "
    "gen total each new used lpddr5 lpddr5x w s fe oc pc"
)
_CHANNELS = re.compile(r"(\d+)ch")
_CORES = re.compile(r"(\d+)c")
_OWN = ("amd", "intel", "epyc", "xeon", "ryzen", "threadripper", "core", "ultra", "ampere", "aws")
_KEPT = ("quadro", "desktop", "laptop")  # what names of other machines do without
_TWO_SOCKETS = ("2s", "dual", "2socket", "2sockets", "dualsocket", "two", "2p")


@lru_cache(maxsize=1)
def hardware_matcher() -> Matcher:
    """Finds the catalogue's names; sizes are those of memory."""
    own: dict[str, list[str]] = {}
    for row in rows("machine_names"):
        texts = [text.strip() for text in row["spellings"].split(";")]
        own.setdefault(row["name"], []).extend(text for text in texts if text)
    table = rows("hardware")
    names = {row["name"] for row in table}
    return Matcher(
        [
            Named(key=row["name"], spellings=(*own.get(row["name"], ()), *_derived(row, names)))
            for row in table
        ],
        passed_over=_PASSED_OVER.split(),
        sizes=True,
    )


def _derived(row: Row, names: set[str]) -> list[str]:
    """The spellings that follow from a name and its kind."""
    words = row["name"].split("-")
    # Of makers and families only its own: an EPYC is no Xeon.
    title = row["title"].lower()
    beside = [word for word in _BESIDE.get(row["kind"], "").split()
              if word not in _OWN or word in title]  # fmt: skip
    channels = [found[1] for word in words if (found := _CHANNELS.fullmatch(word))]
    for count in channels:
        beside += [f"{count}{word}" for word in ("ch", "channel", "channels", "dimms", "x")]
    needed = [word for word in words if word not in beside and word != "2s"] or words
    if words[0] in _KEPT:
        needed = [word for word in words if word != "rtx"]
    optional = " ".join(f"({word})" for word in beside if word not in needed)
    cores = next((found[1] for word in needed if (found := _CORES.fullmatch(word))), None)
    if cores is not None and row["kind"] == "apple":
        ways = [[f"{cores}{end}" if word == f"{cores}c" else word for word in needed]
                for end in ("c", "core", "cores")]  # fmt: skip
    elif "2s" in words:
        ways = [[*needed, word] for word in _TWO_SOCKETS]
        base = row["name"].removesuffix("-2s")
        if not any(name.startswith(base) and name != row["name"] for name in names):
            ways.append(needed)
    else:
        ways = [needed]
    return [f"{' '.join(way)} {optional}" for way in ways]
