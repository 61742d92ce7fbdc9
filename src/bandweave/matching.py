"""One matcher for names as people write them: several words, in any order, glued or apart.

``RTX3090Ti 24GB``, ``geforce rtx 3090 ti`` and ``3090ti`` are one card; ``qwen3:30b`` and ``Qwen3
30B`` one model. A name is found where all words of one of its spellings were written and every
other word may stand beside them; a word that nobody knows is never passed over. Knows words and
sizes of memory; knows no machines, models or links.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_ATOM = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+")
_GIB_OF = {
    **dict.fromkeys(("g", "gb", "gib", "gig", "gigs", "gigabyte", "gigabytes"), 1.0),
    **dict.fromkeys(("t", "tb", "tib", "terabyte", "terabytes"), 1024.0),
}
_MOST_LETTERS = 200  # of what a user writes; a longer text is no name
_UNKNOWN, _GLUED, _BARE = 10.0, 0.5, 1.5  # costs, beside 1 a word
_NEAR = 4


@dataclass(frozen=True, kw_only=True)
class Named:
    """Something that has names. A spelling is words with blanks between them, in any order; those
    in brackets may be left out: ``(nvidia) (geforce) (rtx) 3090 ti``. ``macbook_pro`` is one word,
    which is not the two that it has."""

    key: str
    spellings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a text names. ``size_gib``: the memory that it asks for, None where it does not."""

    key: str
    size_gib: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Spelling:
    key: str
    needed: frozenset[str]
    allowed: frozenset[str]


@dataclass(kw_only=True)
class _Read:
    """A text taken apart."""

    words: set[str] = field(default_factory=set)
    sizes: list[float] = field(default_factory=list)  # with a unit
    bare: list[float] = field(default_factory=list)  # numbers that are no word
    unknown: list[str] = field(default_factory=list)


class Matcher:
    """Finds names. ``passed_over``: words that say nothing, whatever stands beside them."""

    def __init__(
        self, names: Iterable[Named], *, passed_over: Sequence[str] = (), sizes: bool = False
    ) -> None:
        """``sizes``: whether numbers and ``48GB`` may stand for memory."""
        self._sizes = sizes
        every = [(name.key, text.split()) for name in names for text in name.spellings]
        parts = _parts(word for _, words in ((None, list(passed_over)), *every) for word in words)
        self._passed_over = frozenset(part for word in passed_over for part in parts[_glue(word)])
        self._spellings = tuple(_spelling(key, words, parts) for key, words in every)
        counts: Counter[str] = Counter()
        for spelling in self._spellings:
            counts.update(spelling.needed | spelling.allowed)
        self._rarity = {word: 1.0 / math.sqrt(count) for word, count in counts.items()}
        vocabulary = self._rarity.keys() | self._passed_over
        self._by_letter: dict[str, list[str]] = {}
        for word in sorted(vocabulary, key=len, reverse=True):
            self._by_letter.setdefault(word[0], []).append(word)
        self._vocabulary = vocabulary

    def find(self, text: str) -> Match | None:
        """What the text names; None where nothing, or not one thing alone, is called so."""
        found = self._best(text)
        return found[0] if len({match.key for match in found}) == 1 else None

    def near(self, text: str) -> list[str]:
        """The keys of what has most of the words, the nearest first."""
        best = list(dict.fromkeys(match.key for match in self._best(text)))
        if len(best) > 1:
            return best[:_NEAR]
        read = self._read(text)
        words = read.words - self._passed_over | {
            close
            for word in (*read.unknown, *(f"{number:g}" for number in read.bare))
            for close in difflib.get_close_matches(word, self._vocabulary, n=3, cutoff=0.75)
        }
        scores: dict[str, float] = {}
        for spelling in self._spellings:
            shared = words & (spelling.needed | spelling.allowed)
            if not shared & spelling.needed:
                continue
            score = sum(self._rarity[word] for word in shared)
            score -= 0.3 * sum(self._rarity[word] for word in spelling.needed - words)
            scores[spelling.key] = max(score, scores.get(spelling.key, -1.0))
        ranked = sorted(scores, key=lambda key: -scores[key])
        keys = {spelling.key for spelling in self._spellings}
        alike = difflib.get_close_matches(_glue(text, "-"), keys, n=_NEAR, cutoff=0.6)
        good = [key for key in ranked if scores[key] > 0.25]
        return list(dict.fromkeys([*good[: _NEAR - 1], *alike, *good]))[:_NEAR]

    def containing(self, text: str) -> list[str]:
        """The keys of all names that have every word of the text, in their order: for lists."""
        wanted = [_glue(word) for word in text.split()]
        return list(dict.fromkeys(
            spelling.key
            for spelling in self._spellings
            if all(
                any(letters in word for word in spelling.needed | spelling.allowed)
                or letters in _glue(spelling.key)
                for letters in wanted
            )
        ))  # fmt: skip

    def _best(self, text: str) -> list[Match]:
        """All that the text may name, those with most of its words only."""
        read = self._read(text)
        if read.unknown:
            return []
        best: list[Match] = []
        most = (0, 0)  # of the best ones
        for spelling in self._spellings:
            match = self._match(spelling, read)
            if match is None:
                continue
            # A number that is a word of the name is no size; more that is needed is more special.
            others = read.words - spelling.needed - spelling.allowed
            taken = sum(_number(word) is not None for word in others)
            rank = (-taken, len("".join(spelling.needed)))
            if not best or rank > most:
                best, most = [match], rank
            elif rank == most:
                best.append(match)
        return best

    def _match(self, spelling: _Spelling, read: _Read) -> Match | None:
        if not spelling.needed or not spelling.needed <= read.words:
            return None
        left = read.words - spelling.needed - spelling.allowed - self._passed_over
        numbers = [number for word in left if (number := _number(word)) is not None]
        if len(numbers) < len(left):
            return None
        sizes = {*read.sizes, *read.bare, *numbers}
        if len(sizes) > 1 or (sizes and not self._sizes):
            return None
        return Match(key=spelling.key, size_gib=sizes.pop() if sizes else None)

    def _read(self, text: str) -> _Read:
        """The cheapest way to take a text apart: known words, sizes, and as little else as there
        can be. A number is never cut; letters may be, where known words are glued."""
        atoms = _ATOM.findall(text.lower()[:_MOST_LETTERS])
        letters = "".join(atoms)
        edges = {0}
        for atom in atoms:
            edges.add(max(edges) + len(atom))
        ways: list[tuple[float, tuple[tuple[str, str | float], ...]] | None]
        ways = [None] * (len(letters) + 1)
        ways[0] = (0.0, ())
        for start in range(len(letters)):
            here = ways[start]
            if here is None:
                continue
            for stop, cost, kind, value in self._steps(letters, start, edges):
                total = here[0] + cost
                known = ways[stop]
                if known is None or total < known[0]:
                    ways[stop] = (total, (*here[1], (kind, value)))
        read = _Read()
        end = ways[-1]
        assert end is not None, "an atom can always be unknown"
        for kind, value in end[1]:
            if kind == "word":
                read.words.add(str(value))
            elif kind == "unknown":
                read.unknown.append(str(value))
            else:
                (read.sizes if kind == "size" else read.bare).append(float(value))
        return read

    def _steps(
        self, letters: str, start: int, edges: set[int]
    ) -> Iterable[tuple[int, float, str, str | float]]:
        """What may come next: where it ends, what it costs, and what it is."""
        whole = min(edge for edge in edges if edge > start)
        if start not in edges and letters[start].isdigit():
            return
        for word in self._by_letter.get(letters[start], ()):
            stop = start + len(word)
            if not letters.startswith(word, start):
                continue
            cut = (start not in edges) + (stop not in edges)
            if cut and (len(word) < 2 or (stop not in edges and not letters[stop].isalpha())):
                continue
            if any(letters[edge - 1].isdigit() and letters[edge].isdigit()
                   for edge in edges if start < edge < stop):  # fmt: skip
                continue  # "3 1b" is not 31b
            yield stop, 1.0 + _GLUED * cut, "word", word
        if start not in edges:
            return
        atom = letters[start:whole]
        if self._sizes and atom[0].isdecimal() and atom.count(".") < 2:
            yield whole, _BARE, "bare", float(atom)
            after = [edge for edge in edges if edge > whole]
            unit = letters[whole : min(after)] if after else ""
            if unit in _GIB_OF:
                yield whole + len(unit), 1.0, "size", float(atom) * _GIB_OF[unit]
        yield whole, _UNKNOWN, "unknown", atom


def _number(word: str) -> float | None:
    """The size that a word of some other name may stand for: ``48gb``, ``512``."""
    digits = word.rstrip("abcdefghijklmnopqrstuvwxyz")
    scale = _GIB_OF.get(word[len(digits) :] or "gb")
    return float(digits) * scale if digits.isdecimal() and scale is not None else None


def _spelling(key: str, words: list[str], parts: Mapping[str, tuple[str, ...]]) -> _Spelling:
    sides: dict[bool, set[str]] = {False: set(), True: set()}
    for word in words:
        sides[word.startswith("(")].update(parts[_glue(word)])
    return _Spelling(key=key, needed=frozenset(sides[False]), allowed=frozenset(sides[True]))


def _parts(words: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Every word with those that it is glued from, itself where it is from none: a text is read in
    the smallest words, so that ``rpi5`` and ``rpi 5`` are the same."""
    whole = {_glue(word): "_" in word for word in words}
    whole.pop("", None)
    found: dict[str, tuple[str, ...]] = {"": ()}
    for word in sorted(whole, key=len):
        ways: dict[int, tuple[str, ...]] = {0: ()}
        for stop in range(1, len(word) + 1):
            for start, before in list(ways.items()):
                part = word[start:stop]
                if part == word or part not in whole or (part.isalpha() and len(part) < 2):
                    continue
                inside = start > 0 and _is_number(word[start - 1]) and _is_number(word[start])
                ends = stop < len(word) and _is_number(word[stop - 1]) and _is_number(word[stop])
                if not inside and not ends:
                    ways[stop] = min(ways.get(stop, before + (part,)), before + (part,), key=len)
        made = ways.get(len(word))
        found[word] = (word,) if made is None or whole[word] else tuple(
            small for part in made for small in found[part]
        )  # fmt: skip
    return found


def _is_number(letter: str) -> bool:
    return letter.isdigit() or letter == "."


def _glue(text: str, between: str = "") -> str:
    """The letters and numbers of a text alone."""
    return between.join(_ATOM.findall(text.lower()[:_MOST_LETTERS]))
