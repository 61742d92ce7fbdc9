"""From what a user writes for MODEL to a folder. Knows names and paths, not what is in them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from bandweave import files
from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import printable, shown

DEMO = "demo"
#: Models that come with the package: a dense one, and a mixture of experts.
BUNDLED = (DEMO, "demo-moe")


def demo_folder(name: str = DEMO) -> Path:
    """A model that comes with the package; ``CheckpointError`` where it was not installed."""
    folder = Path(__file__).resolve().parent.parent / "assets" / name
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"this installation lacks the model {name}; install bandweave again, or name a model "
            "folder"
        )
    return folder


def resolve_model(text: str, elsewhere: Callable[[str], Path | None] = lambda text: None) -> Path:
    """The model that ``text`` means: the folder of ``demo`` or ``demo-moe`` (always the bundled
    models), a folder, or a GGUF file; ``elsewhere`` is asked for what is nothing here, before that
    is an error.

    ``CheckpointError`` says what else the text may have been meant as, and what to do. What is in
    the folder is checked by ``Folder.open``.
    """
    if text in BUNDLED:  # a folder of that name is written ./demo
        return demo_folder(text)
    if not text.strip() or "\0" in text:
        raise CheckpointError(f"{shown(text)} names no model; name a model folder, or `demo`")
    name = printable(text)
    try:
        path = Path(text).expanduser()
        if path.is_dir():
            return path
        is_file = path.is_file()
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder for a ~
        raise CheckpointError(f"{name} cannot be looked up: {_why(error)}") from error
    if (found := None if is_file else _asked(elsewhere, text, path)) is not None:
        return found
    if is_file and path.suffix.lower() == ".gguf":
        return path
    if is_file:
        raise CheckpointError(f"{name} is a file; name the folder that it is in, or a .gguf file")
    close = _close_names(path)
    if close is not None:
        raise CheckpointError(f"{name} does not exist; did you mean {printable(close)}?")
    if files.is_there(path):
        raise CheckpointError(f"{name} is neither a folder nor a file; name a model folder")
    raise CheckpointError(
        f"{name} does not exist; name a model folder, a model of the hub as org/name, or `demo`"
    )


def _asked(elsewhere: Callable[[str], Path | None], text: str, path: Path) -> Path | None:
    """What is elsewhere by a name that is nothing here, nor nearly something."""
    if files.is_there(path) or _close_names(path) is not None or text.startswith((".", "/", "~")):
        return None
    return elsewhere(text)


def _why(error: OSError | RuntimeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _close_names(path: Path) -> Path | None:
    """A folder beside ``path`` whose name is nearly the same."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return None
    found = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return path.parent / found[0] if found else None
