"""From what a user writes for MODEL to a folder or file, be it here or at the hub.

What lies here goes first. Knows names; what is in a folder is checked by whoever opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bandweave.checkpoints import layout, resolve
from bandweave.environment import read_environment
from bandweave.hub.arrival import arrive
from bandweave.hub.known_names import known_as
from bandweave.hub.listing import Listing, list_files
from bandweave.hub.names import HubName, parse_name
from bandweave.hub.refusals import HubError, Unreachable
from bandweave.hub.selection import Selection, quantisation, quantised, select
from bandweave.hub.service import service
from bandweave.hub.store import Store, check_store, read_record
from bandweave.shown import printable

Say = Callable[[str], None]


def resolve_model(text: str, say: Say = lambda sentence: None) -> Path:
    """The model folder, or the ``.gguf`` file, that ``text`` means: ``demo`` or ``demo-moe``
    (always the bundled models), what lies here by that name, or a model of the hub, whose small
    files are fetched and whose weights come as they are read.

    ``say`` hears what a user should know. ``CheckpointError`` says what else the text may have
    been meant as, and what to do.
    """
    return resolve.resolve_model(text, lambda unknown: _from_hub(unknown, say))


def hub_name_of(text: str) -> HubName:
    """The model of the hub that ``text`` names. ``HubError`` where it names none, or a folder of
    this machine."""
    if Path(text).is_dir():
        raise HubError(f"{printable(text)} is a folder of this machine already; name org/name")
    name = parse_name(text)
    if name is None:
        if names := known_as(text):
            raise _known(text, names)
        raise HubError(
            f"{printable(text)} is no model of the hub; name one as org/name, for example "
            "Qwen/Qwen3-0.6B"
        )
    return name


def find(name: HubName) -> tuple[Listing, Selection, HubName]:
    """What the hub has by that name. ``HubError`` where it has nothing, or cannot be asked."""
    hub = service()
    if name.revision and not name.file and quantisation(name.revision):
        listing = list_files(hub, replace(name, revision=""))
        if file := quantised(listing, name.revision):
            name = replace(name, revision="", file=file)
            return listing, select(listing, name), name
        try:
            listing = list_files(hub, name)
        except HubError as error:
            raise HubError(
                f"{name.repo} has no GGUF file of the quantisation {printable(name.revision)}, nor "
                f"a revision of that name; `bandweave run {name.repo}` says what it has"
            ) from error
    else:
        listing = list_files(hub, name)
    return listing, select(listing, name), name


def fetch_folder(name: HubName, say: Say = lambda sentence: None) -> Path:
    """The folder or file of a model of the hub, as it is there now; as it was last where the hub
    cannot be reached and the model is here."""
    store = check_store(read_environment().downloads)
    if name.is_commit and (here := _here(store, name)) is not None:
        return here
    try:
        listing, selection, found = find(name)
        path, selection = arrive(service(), store, listing, selection)
        store.remember(found, listing.commit)
        store.remember(name, listing.commit)
    except Unreachable as error:
        here = _here(store, name) or _cached(name)
        if here is None:
            raise Unreachable(f"{name} is not on this machine: {error}") from error
        say(f"({error}; going on with what is here of {name})")
        return here
    return path / selection.start if selection.start else path


def _from_hub(text: str, say: Say) -> Path | None:
    name = parse_name(text)
    if name is not None:
        return fetch_folder(name, say)
    if names := known_as(text):
        raise _known(text, names)
    return None


def _known(text: str, names: Sequence[str]) -> HubError:
    others = f" (or {', '.join(names[1:])})" if names[1:] else ""
    return HubError(
        f"{printable(text)} is no folder here; the hub calls it {names[0]}{others}: use that name"
    )


def _here(store: Store, name: HubName) -> Path | None:
    """What of a name was made here before."""
    commit = store.known_commit(name)
    folder = store.folder(name.repo, commit) if commit else None
    record = None if folder is None else read_record(folder)
    if folder is None or record is None:
        return None
    start = name.file
    if name.revision and not name.file and quantisation(name.revision):
        quant = quantisation(name.revision)
        start = next((one for one in record.starts if quantisation(one) == quant), "?")
    elif not start and "" not in record.starts and len(record.starts) == 1:
        start = record.starts[0]
    if start not in record.starts:
        return None
    path = folder / start if start else folder
    return path if path.exists() else None


def _cached(name: HubName) -> Path | None:
    """The folder of a model that another program has downloaded, for when the hub is out of
    reach."""
    from huggingface_hub import try_to_load_from_cache

    wanted = name.file or layout.CONFIG
    found = try_to_load_from_cache(name.repo, wanted, revision=name.revision or None)
    if not isinstance(found, str):
        return None
    return Path(found) if name.file else Path(found).parent
