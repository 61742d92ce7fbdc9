"""Cards in a machine, as users write them: ``epyc-9354-12ch with 2x rtx-4090 on pcie-5``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from bandweave.planning.machines.hardware import Hardware, find_hardware
from bandweave.planning.machines.links import find_link

_WITH = re.compile(r"\s+with\s+", re.IGNORECASE)
_ON = re.compile(r"\s+on\s+", re.IGNORECASE)
_AND = re.compile(r"\s+and\s+|\s*&\s*", re.IGNORECASE)
_COUNT = re.compile(r"\s*(\d+)\s*[x*×]\s*(.*)", re.ASCII)
_MOST_CARDS = 16
_BUSES = ("pcie", "oculink", "nvlink")
#: Cards that came with the fifth PCI Express; what is older has the fourth.
_FIFTH = ("rtx-50", "rtx-pro", "b200", "b300", "h100", "h200", "rx-90", "r9700", "arc-b")


def machine_with_cards(text: str, find: Callable[[str], Hardware]) -> Hardware | None:
    """The machine that ``text`` describes with its cards, or None where it names no cards.

    ``find`` gives hardware by name. ``ValueError`` where what is put in is no card."""
    name, *rest = _WITH.split(text, maxsplit=1)
    if not rest:
        return None
    parts, *buses = _ON.split(rest[0], maxsplit=1)
    cards: list[Hardware] = []
    for part in _AND.split(parts):
        match = _COUNT.fullmatch(part)
        count, card = (int(match[1]), match[2]) if match else (1, part)
        if not 1 <= count <= _MOST_CARDS:
            raise ValueError(f"{part.strip()!r}: a machine takes 1 to {_MOST_CARDS} cards")
        try:
            found = find(card.strip())
        except ValueError:
            if match is None and not any(letter.isalpha() for letter in card.rstrip("GBgb ")):
                return None  # "mac studio with 512 GB": part of a name
            raise
        if not found.is_card:
            if match is None and _is_one_name(text):
                return None  # "Framework Desktop with Ryzen AI Max 395"
            raise ValueError(
                f"{found.name} is no card that could be put into {name.strip()}; join machines "
                "with + instead"
            )
        cards += [found] * count
    machine = find(name.strip())
    if machine.is_card:
        raise ValueError(f"{machine.name} is a card itself; name the machine that it sits in")
    return with_cards(machine, cards, buses[0].strip() if buses else "")


def _is_one_name(text: str) -> bool:
    """Whether the catalogue knows the whole text as one machine."""
    try:
        find_hardware(text)
    except ValueError:
        return False
    return True


def with_cards(machine: Hardware, cards: list[Hardware], bus: str = "") -> Hardware:
    """The machine with these cards in it, on a bus of the links' catalogue."""
    if not bus:
        bus = "pcie-5" if all(card.name.startswith(_FIFTH) for card in cards) else "pcie-4"
    link = find_link(bus)
    if not link.name.startswith(_BUSES):
        raise ValueError(
            f"{link.name} is no bus that cards sit on; there are pcie-3, pcie-4, pcie-5"
        )
    names = list(dict.fromkeys(card.name for card in cards))
    counts = [sum(card.name == name for card in cards) for name in names]
    shown = " and ".join(f"{count} x {name}" if count > 1 else name
                         for name, count in zip(names, counts, strict=True))  # fmt: skip
    watts = [machine.measured_watts or machine.watts, *(card.watts for card in cards)]
    prices = [machine.price_usd, *(card.price_usd for card in cards)]
    return replace(
        machine,
        name=f"{machine.name} with {shown}",
        title=f"{machine.title} with {shown}",
        cards=tuple(cards),
        bus=link.name,
        measured_watts=None,
        watts=None if None in watts else sum(each for each in watts if each is not None),
        prices=(),  # those of the parts are their own
        price_usd=None if None in prices else sum(each for each in prices if each is not None),
    )
