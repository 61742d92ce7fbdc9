"""Figures: opened, captioned and saved alike. Knows matplotlib; knows no plans."""

from __future__ import annotations

import contextlib
import datetime
import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bandweave.shown import printable
from bandweave.whole_file import whole_file

COLOURS = ("#2f6db3", "#d9822b", "#4f9d69", "#8e6bb5", "#c0504d", "#2aa1a1", "#7f7f7f")
TODAY = "#b9b9b9"
PUBLISHED = "#111111"
GREY = "#666666"

_SUFFIXES = (".png", ".svg", ".pdf")
_STYLE: Any = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.fonttype": "path",  # the same letters wherever the picture is opened
    "svg.hashsalt": "bandweave",  # the same picture has the same bytes
}
_DOTS_PER_INCH = 150


def check_target(path: Path, option: str = "--chart") -> None:
    """``ValueError`` where no picture can be written there, before anything is computed."""
    check_matplotlib(option)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{option} {path}: the name must end in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {path.parent}")


def check_matplotlib(option: str) -> None:
    """``ValueError`` where matplotlib is missing."""
    try:
        import matplotlib.figure as _  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{option} needs matplotlib: pip install 'bandweave[charts]'; without {option} the "
            "same figures come as a table"
        ) from error


@contextlib.contextmanager
def panels(
    heights: Sequence[float], *, title: str, width: float = 9.0
) -> Iterator[tuple[Any, list[Any]]]:
    """A figure of panels below each other, ``heights`` in inches, in bandweave's style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        head = 0.35 + 0.22 * len(_folded(title, width))
        figure = Figure(figsize=(width, sum(heights) + head + 0.55), layout="constrained")
        figure.suptitle("\n".join(_folded(title, width)), x=0.01, ha="left", fontsize=11,
                        fontweight="bold")  # fmt: skip
        axes = figure.subplots(len(heights), 1, squeeze=False,
                               gridspec_kw={"height_ratios": list(heights)})  # fmt: skip
        yield figure, [each for row in axes for each in row]


def save(figure: Any, path: Path, footer: str) -> None:
    """Writes the picture in the kind that its name ends in; ``ValueError`` where that fails."""
    from bandweave.cli import output

    _caption(figure, footer)
    fixed = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower(), {})
    try:
        with whole_file(path) as file:
            figure.savefig(file, format=path.suffix.lower()[1:], dpi=_DOTS_PER_INCH, metadata=fixed)
    except OSError as error:
        raise ValueError(f"--chart {printable(path)}: {error.strerror or error}") from error
    output.say(f"drew {printable(path)}")


def inline_svg(figure: Any, footer: str, name: str) -> str:
    """The picture as an ``<svg>`` element for a page. ``name``: unique in the page, since ids of
    several pictures would meet else."""
    _caption(figure, footer)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    return re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", re.sub(
        r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1), count=1)  # fmt: skip


def footer_text(*, published: bool, measured: bool = False) -> str:
    """What the marks of a picture mean, and when it was made."""
    words = [f"Made by `bandweave plan` on {datetime.date.today().isoformat()}."]
    what = "Predicted from probed rates" if measured else "Predicted, not measured"
    words.append(f"{what}; thin lines and bands are the range of such predictions.")
    if published:
        words.append("Diamonds: measurements that others published.")
    return " ".join(words)


def tokens_label(count: float) -> str:
    """``512``, ``32k``, ``1M``: tokens as people write them."""
    whole = round(count)
    for unit, scale in (("M", 1 << 20), ("k", 1 << 10)):
        if whole >= scale and whole % scale == 0:
            return f"{whole // scale}{unit}"
    return f"{whole}"


def wrapped(text: str, width: int = 26) -> str:
    """A label in several lines; words stay whole where they can, and line breaks stay."""
    return "\n".join(textwrap.fill(line, width, break_on_hyphens=False)
                     for line in text.split("\n"))  # fmt: skip


def _folded(title: str, width: float) -> list[str]:
    return textwrap.wrap(title, int(width * 10.5), break_on_hyphens=False) or [""]


def _caption(figure: Any, footer: str) -> None:
    figure.supxlabel(
        "\n".join(textwrap.wrap(footer, int(figure.get_figwidth() * 16))),
        x=0.01, ha="left", fontsize=7, color=GREY,
    )  # fmt: skip
