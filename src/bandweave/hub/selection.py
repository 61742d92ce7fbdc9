"""Selection: which files of a repository make the model that was named. Asks nobody.

A repository may hold a model several times: as safetensors, as GGUF files of several
quantisations, as a framework's own. Without a file or a quantisation in the name the safetensors
are meant, which everything else was made from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bandweave.checkpoints import layout
from bandweave.hub.listing import Listing, RemoteFile
from bandweave.hub.names import HubName
from bandweave.hub.refusals import HubError
from bandweave.shown import printable

_SMALL = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab"
    r"|chat_template|params|quantize_config|hf_quant_config|preprocessor_config)\.json"
    r"|model\.safetensors\.index\.json|chat_template\.jinja|merges\.txt|tokenizer\.model|LICENSE.*",
    re.ASCII,
)
_MOST_SMALL_BYTES = 256_000_000
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors", re.ASCII)
_ANY = re.compile(r"[^/]+\.safetensors", re.ASCII)
_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf", re.IGNORECASE)
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d_(?:\d|[KN][A-Z]*)(?:_[A-Z]+)*|TQ\d_0|MXFP4(?:_MOE)?|BF16"
    r"|F16|F32))(?![A-Za-z0-9])",
    re.ASCII | re.IGNORECASE,
)
_FIRST_CHOICES = ("Q4_K_M", "Q4_K_S", "Q4_K_XL", "UD-Q4_K_XL", "Q4_0", "IQ4_XS", "Q8_0", "MXFP4")
_MOST_LISTED = 24


@dataclass(frozen=True, kw_only=True)
class Selection:
    """``small`` files come whole, ``weights`` by what is read of them; ``start``: the file to open,
    empty for the folder."""

    small: tuple[RemoteFile, ...]
    weights: tuple[RemoteFile, ...]
    start: str = ""

    @property
    def num_bytes(self) -> int:
        """Of everything."""
        return sum(file.size for file in (*self.small, *self.weights))


def select(listing: Listing, name: HubName) -> Selection:
    """The files that ``name`` means. ``HubError`` says what there is instead, and what to write."""
    files = listing.files
    small = tuple(
        file
        for path, file in sorted(files.items())
        if _SMALL.fullmatch(path) and file.size <= _MOST_SMALL_BYTES
    )
    if name.file:
        return _with_gguf(small, _parts_of(listing, name))
    weights = _safetensors(listing)
    if weights and layout.CONFIG in files:
        return Selection(small=small, weights=weights)
    models = gguf_models(files.values())
    if len(models) == 1:
        return _with_gguf(small, models[0])
    if models:
        raise HubError(_choice(listing, models))
    raise HubError(_nothing(listing, bool(weights)))


def quantised(listing: Listing, tag: str) -> str:
    """The path of the GGUF model of a repository that has ``tag`` for its quantisation, its first
    file; empty where there is none."""
    found = [
        parts[0].path
        for parts in gguf_models(listing.files.values())
        if quantisation(parts[0].path).lower() == tag.lower()
    ]
    return min(found, key=len) if found else ""


def quantisation(path: str) -> str:
    """What a file's name says of its quantisation, such as ``Q4_K_M``; empty where nothing."""
    found = _QUANT.findall(path.rpartition("/")[2].removesuffix(".gguf"))
    return found[-1].upper() if found else ""


def gguf_models(files: Iterable[RemoteFile]) -> list[tuple[RemoteFile, ...]]:
    """The GGUF models among files, each with all its parts in order; no vision towers or the
    like."""
    groups: dict[str, list[RemoteFile]] = {}
    for file in files:
        name = file.path.rpartition("/")[2].lower()
        if not name.endswith(".gguf") or name.startswith(("mmproj", "imatrix")) or "mmproj" in name:
            continue
        match = _PART.fullmatch(file.path)
        key = f"{match['name']}-of-{match['total']}" if match else file.path
        groups.setdefault(key, []).append(file)
    models = (tuple(sorted(group, key=lambda file: file.path)) for group in groups.values())
    return sorted(models, key=lambda parts: (sum(file.size for file in parts), parts[0].path))


def _safetensors(listing: Listing) -> tuple[RemoteFile, ...]:
    files = listing.files
    if layout.SINGLE in files:
        return (files[layout.SINGLE],)
    shard = _ANY if layout.INDEX in files else _SHARD  # the index says which ones, once it is here
    return tuple(file for path, file in sorted(files.items()) if shard.fullmatch(path))


def _parts_of(listing: Listing, name: HubName) -> tuple[RemoteFile, ...]:
    models = gguf_models(listing.files.values())
    for parts in models:
        if any(name.file == file.path for file in parts):
            match = _PART.fullmatch(parts[0].path)
            if match and len(parts) != int(match["total"]):
                raise HubError(
                    f"{listing.repo} has {len(parts)} of the {int(match['total'])} parts of "
                    f"{printable(name.file)}; choose another file or model"
                )
            return parts
    inside = [
        parts
        for parts in models
        if parts[0].path.rpartition("/")[2].lower() == name.file.rpartition("/")[2].lower()
    ]
    if len(inside) == 1:  # the folder was left out, or the case was wrong
        return inside[0]
    if models:
        raise HubError(
            f"{listing.repo} has no file {printable(name.file)}; {_choice(listing, models)}"
        )
    raise HubError(f"{listing.repo} has no file {printable(name.file)}, nor any GGUF file")


def _with_gguf(small: tuple[RemoteFile, ...], parts: tuple[RemoteFile, ...]) -> Selection:
    return Selection(small=small, weights=parts, start=parts[0].path)


def _choice(listing: Listing, models: Sequence[Sequence[RemoteFile]]) -> str:
    """Names the GGUF models that there are."""
    by_quant = {quantisation(parts[0].path): parts[0].path for parts in reversed(models)}
    first = next((one for one in _FIRST_CHOICES if one in by_quant), "")
    best = by_quant.get(first, models[len(models) // 2][0].path)
    listed = [
        f"{quantisation(parts[0].path) or printable(parts[0].path)} "
        f"({_size(sum(file.size for file in parts))})"
        for parts in models[:_MOST_LISTED]
    ]
    more = f" and {len(models) - _MOST_LISTED} more" if len(models) > _MOST_LISTED else ""
    named = f"{listing.repo}:{first}" if first else f"{listing.repo}/{printable(best)}"
    return (
        f"{listing.repo} holds several GGUF models: {', '.join(listed)}{more}; name one, for "
        f"example {named}"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"


def _nothing(listing: Listing, weights: bool) -> str:
    paths = listing.files
    if weights:
        return f"{listing.repo} has weights, but no {layout.CONFIG}; choose another model"
    if "adapter_config.json" in paths:
        return (
            f"{listing.repo} is an adapter (LoRA), not a model: merge it into its base model first"
        )
    if any(path.endswith((".bin", ".pth", ".pt", ".ckpt")) for path in paths):
        return (
            f"{listing.repo} has PyTorch files alone, which are not read since they can run code; "
            "choose a version with safetensors or GGUF files"
        )
    return f"{listing.repo} has no safetensors or GGUF files; choose another model"
