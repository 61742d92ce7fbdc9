"""Progress on standard error, for terminals only: one line, which is gone once done.

Knows bytes, tokens and rounds, not what they are of.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text

from bandweave.cli import output

_BAR_WIDTH = 16
_TOLD_SECONDS = 5.0  # of what is left; less is over before it is read
PATIENCE_SECONDS = 1.0  # before something that may be over at once is spoken of


class LoadingBar:
    """Says what is waited for, then shows bytes."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress, self._what = progress, what
        self._task = progress.add_task(what, total=None)
        self._hint: threading.Timer | None = None

    def wait_for(self, name: str, hint: str) -> None:
        """Names what has to come first, and hints at a remedy where it takes long."""
        self.close()
        self._say(f"waiting for {name}")
        self._hint = threading.Timer(
            PATIENCE_SECONDS, lambda: self._say(f"waiting for {name}: {hint}")
        )
        self._hint.daemon = True
        self._hint.start()

    def update(self, done: int, total: int, detail: str = "") -> None:
        """Bytes done and in all; ``detail`` follows what is waited for."""
        self.close()
        words = self._what + detail
        self._progress.update(self._task, description=words, completed=done, total=max(1, total))

    def close(self) -> None:
        """Gives no more hints."""
        if self._hint is not None:
            self._hint.cancel()
            self._hint.join()
            self._hint = None

    def _say(self, words: str) -> None:
        self._progress.update(self._task, description=words)


@contextlib.contextmanager
def loading_bar(what: str) -> Iterator[LoadingBar]:
    """A bar for bytes."""
    with _progress(_bytes) as progress:
        bar = LoadingBar(progress, what)
        try:
            yield bar
        finally:
            bar.close()


@contextlib.contextmanager
def counting_bar(
    what: str, unit: str, *, after: float = 0.0
) -> Iterator[Callable[[int, int], None]]:
    """Shows what was counted and how much there is, once ``after`` seconds have passed; it is gone
    when all is done. Call what it yields with both numbers."""
    started = time.monotonic()

    def figures(task: Task) -> str:
        return f"{task.completed:.0f} of {task.total or 0:.0f} {unit}"

    with contextlib.ExitStack() as stack:
        shown: list[tuple[Progress, TaskID]] = []

        def update(done: int, total: int) -> None:
            if done >= total:
                stack.close()
            elif not shown and time.monotonic() - started >= after:
                progress = stack.enter_context(_progress(figures))
                shown.append((progress, progress.add_task(what, total=total, completed=done)))
            elif shown:
                progress, task = shown[0]
                progress.update(task, completed=done, total=total)

        yield update


@contextlib.contextmanager
def part_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Shows what is being measured and how much of all is done. Call what it yields with words,
    parts done and in all."""

    def figures(task: Task) -> str:
        return f"{task.completed:.0f} of {task.total or 0:.0f}"

    with _progress(figures) as progress:
        task = progress.add_task("measuring", total=None)
        yield lambda what, done, total: progress.update(
            task, description=f"measuring {what}", completed=done, total=total
        )


@contextlib.contextmanager
def status_line(words: str) -> Iterator[None]:
    """Words without figures."""
    with _progress(_bytes) as progress:
        progress.add_task(words, total=None)
        yield


def progress_line(words: str, share: float | None, figures: str, width: int) -> str:
    """What is shown at most ``width`` columns wide: words, which are cut where there is no room, a
    bar for the share that is done, and figures. None: nobody knows how much there is."""
    rest = ""
    if share is not None:
        done = round(_BAR_WIDTH * min(1.0, max(0.0, share)))
        rest = f"  {'━' * done}{'─' * (_BAR_WIDTH - done)}  {figures}"
    room = max(8, width - len(rest))
    if len(words) > room:
        words = words[: room - 1] + "…"
    return (words + rest)[:width]


class _Line(ProgressColumn):
    """One line, however narrow the terminal: a second one could not be taken back."""

    def __init__(self, console: Console, figures: Callable[[Task], str]) -> None:
        super().__init__()
        self._console, self._figures = console, figures

    def render(self, task: Task) -> Text:
        share = None if task.total is None else task.completed / task.total
        width = self._console.width - 1
        line = progress_line(task.description, share, self._figures(task), width)
        return Text(line, no_wrap=True)


def _bytes(task: Task) -> str:
    speed = f", {output.size(task.speed)}/s" if task.speed else ""
    if task.speed and task.time_remaining and task.time_remaining >= _TOLD_SECONDS:
        speed += f", {output.duration(task.time_remaining)} left"
    return f"{output.size(task.completed)} of {output.size(task.total or 0)}{speed}"


def _progress(figures: Callable[[Task], str]) -> Progress:
    console = Console(stderr=True)
    # What is printed meanwhile goes to standard output, wherever that leads, and not to the bar's
    # terminal.
    return Progress(_Line(console, figures), console=console, transient=True, redirect_stdout=False)
