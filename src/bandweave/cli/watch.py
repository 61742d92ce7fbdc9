"""What a command shows while a model opens and reads a prompt: bars, where people watch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from bandweave.cli import output
from bandweave.serving.watcher import Watcher
from bandweave.shown import printable

_MOST_NODES = 4  # whose progress a line has room for


class _Remarks(Watcher):
    def remark(self, sentence: str) -> None:
        output.say(sentence)

    def gathering(self, lack: str) -> None:
        output.say(f"waiting for {lack}")


@contextlib.contextmanager
def watch_loading(name: str, nodes: int) -> Iterator[Watcher]:
    """A ``serving.watcher.Watch``: a bar, on a terminal, and remarks anywhere."""
    if not output.is_terminal():
        yield _Remarks()
        return
    from bandweave.cli.progress import LoadingBar, loading_bar

    class Bar(_Remarks):
        def __init__(self, bar: LoadingBar) -> None:
            self._bar = bar

        def waiting(self, node: str) -> None:
            self._bar.wait_for(node, "is `bandweave worker` running there?")

        def loading(self, progress: Sequence[tuple[int, int]]) -> None:
            done, whole = (sum(column) for column in zip(*progress, strict=True))
            self._bar.update(done, whole, _by_node(progress[:nodes]))

    where = f" on {output.count(nodes, 'node')}" if nodes else ""
    with loading_bar(f"loading {printable(name)}{where}") as bar:
        yield Bar(bar)


def _by_node(progress: Sequence[tuple[int, int]]) -> str:
    """How far each of several nodes is: one may have a slower disk, or a download before it."""
    if not 1 < len(progress) <= _MOST_NODES or not all(whole for _, whole in progress):
        return ""
    return f" ({', '.join(f'{100 * done // whole} %' for done, whole in progress)})"


@contextlib.contextmanager
def watch_reading(prompt_tokens: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """For ``Session.answer``: says how far the nodes have read a prompt, where that takes longer
    than a second and people watch."""
    if not shown or not output.is_terminal():
        yield lambda done: None
        return
    from bandweave.cli.progress import PATIENCE_SECONDS, counting_bar

    with counting_bar("reading the prompt", "tokens", after=PATIENCE_SECONDS) as update:
        yield lambda done: update(done, prompt_tokens)
