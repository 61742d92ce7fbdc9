"""What the options of ``plan`` mean: machines, links, models. Reads the files that users name."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bandweave import files
from bandweave.shown import printable

if TYPE_CHECKING:
    from bandweave.hub.names import HubName
    from bandweave.models.model_shape import ModelShape
    from bandweave.planning.machines.hardware import Hardware
    from bandweave.planning.machines.rates import LinkRates
    from bandweave.planning.search.columns import Machines
    from bandweave.planning.search.conversation import Conversation
    from bandweave.planning.search.layout import Question

#: Tokens of a context and of a prompt that nobody names.
DEFAULT_CONTEXT = 4096
DEFAULT_PROMPT = 1024

_COUNT = re.compile(r"\s*(\d+)\s*[x*×]\s*(.*)", re.ASCII)
_PAIR = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*=\s*(.+)", re.ASCII)
_OVER = re.compile(r"\s+(?:over|@)\s+")
#: A plus that is part of a processor's name: Ryzen AI Max+ 395.
_NAMED_PLUS = re.compile(r"\bmax\s?\+(?=[\s-]*(?:pro\s*)?3\d\d\b)", re.IGNORECASE)
_MOST_MACHINES = 1024
_MOST_BYTES = 1_000_000  # of a hardware file


def parse_model(text: str) -> ModelShape:
    """A folder, a ``.gguf`` file, a model of the hub, of which headers are fetched, or a known
    name; ``ValueError`` with near names."""
    from bandweave.models.known_models import known_model
    from bandweave.models.model_names import is_makers

    path = Path(text)
    if text in ("demo", "demo-moe"):
        from bandweave.checkpoints.model_files import shape_from_path
        from bandweave.checkpoints.resolve import demo_folder

        return shape_from_path(demo_folder(text))
    if (name := _hub_name(text, path)) is not None:
        if is_makers(name.repo) and not name.file:
            with contextlib.suppress(ValueError):
                return known_model(text)
        return _of_the_hub(name)
    if path.suffix == ".gguf" or path.is_dir():
        from bandweave.checkpoints.model_files import shape_from_path

        shape = shape_from_path(path)
        return replace(shape, name=printable(shape.name))  # pictures take text alone
    if path.exists() or "/" in text:
        raise ValueError(f"{printable(text)} is neither a model folder nor a .gguf file")
    return known_model(text)


def named_format(text: str) -> str | None:
    """The format of the weights that a model's name ends in, where that is no file's and no
    folder's name: ``llama3.1:70b-instruct-q4_K_M``."""
    from bandweave.models.model_names import without_format

    return None if Path(text).exists() else without_format(text)[1]


def _of_the_hub(name: HubName) -> ModelShape:
    """What the hub has by that name, or the catalogue where the hub cannot be reached."""
    from bandweave.cli.remarks import remark
    from bandweave.models.known_models import known_model

    try:
        if os.name == "nt":  # where nothing that is filled as it is read can be kept
            raise ValueError("sizes of other models are read there on Linux and macOS alone")
        from bandweave.checkpoints.model_files import shape_from_path
        from bandweave.hub.resolve import fetch_folder

        return replace(shape_from_path(fetch_folder(name)), name=str(name))
    except (ImportError, ValueError, OSError) as error:  # no engine here, or no network
        try:
            model = known_model(name.repo.partition("/")[2])
        except ValueError:
            raise error from None
        remark(
            f"{name} was not looked up at the hub: {str(error).splitlines()[0]}; these are the "
            f"sizes of {model.name}"
        )
        return model


def _hub_name(text: str, path: Path) -> HubName | None:
    """The model of the hub that a text names, which is nothing here."""
    if "/" not in text or path.exists() or path.parent.is_dir():
        return None
    from bandweave.hub.names import parse_name

    return parse_name(text)


def read_hardware(texts: Sequence[str]) -> Mapping[str, Hardware]:
    """A user's own machines by name, from files and from ``NAME,FIELD=VALUE``, which changes a
    known machine wherever it is named."""
    from bandweave.planning.machines.hardware_text import hardware_from_text

    result: dict[str, Hardware] = {}
    for text in texts:
        if "=" in text and not Path(text).exists():
            changed = hardware_from_text(text)
            result[changed.name] = changed
        else:
            result |= read_hardware_file(Path(text))
    return result


def read_hardware_file(path: Path) -> Mapping[str, Hardware]:
    """The machines of one TOML file, by name."""
    from bandweave.planning.machines.hardware_text import hardware_from_toml

    content = files.read_bytes(path, most=_MOST_BYTES, error=ValueError)
    try:
        return hardware_from_toml(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{printable(path)} is not UTF-8 text: byte {error.start} is wrong"
        ) from error


def parse_machines(
    texts: Sequence[str],
    links: Sequence[str],
    own: Mapping[str, Hardware],
    engine: str = "any",
) -> Machines:
    """``--on`` and ``--link``: several of the first add up, several of the second are a choice;
    ``1-2=LINK`` is the link of two machines, numbered from 1. ``engine``: software that is asked
    for. ``ValueError`` for a link that the machines cannot have."""
    from bandweave.planning.search.columns import Machines, default_link

    hardware = [machine for text in texts for machine in _hardware(text, own)]
    if not 1 <= len(hardware) <= _MOST_MACHINES:
        raise ValueError(f"{len(hardware)} machines; a plan is for 1 to {_MOST_MACHINES}")
    everywhere: list[LinkRates] = []
    pairs = []
    for text in links:
        match = _PAIR.fullmatch(text)
        if match is None:
            everywhere.append(_link(text, hardware))
            continue
        a, b = int(match[1]), int(match[2])
        if not (1 <= a <= len(hardware) and 1 <= b <= len(hardware)) or a == b:
            raise ValueError(
                f"--link {text}: machines are numbered 1 to {len(hardware)}, and a link joins two"
            )
        if any({a - 1, b - 1} == {one, other} for one, other, _ in pairs):
            raise ValueError(f"--link {text}: machines {a} and {b} have a link already; give one")
        pairs.append((a - 1, b - 1, _link(match[3], [hardware[a - 1], hardware[b - 1]])))
    return Machines(
        hardware=tuple(hardware),
        links=tuple(everywhere) or (default_link(hardware),),
        pairs=tuple(pairs),
        assumed=not everywhere,
        engine=_engine(engine),
    )


def parse_setup(
    text: str, links: Sequence[str], own: Mapping[str, Hardware], engine: str = "any"
) -> Machines:
    """``--compare``: machines, and behind ``over`` a link of their own. Without it those of
    ``links`` that they can have, else what is assumed where nobody names a link."""
    machines, *own_link = _OVER.split(text.strip())
    if own_link:
        return parse_machines([machines], own_link, own, engine)
    usable = []
    for link in links:
        if _PAIR.fullmatch(link) is not None:
            continue  # of the machines of --on alone
        with contextlib.suppress(ValueError):
            parse_machines([machines], [link], own)
            usable.append(link)
    return parse_machines([machines], usable, own, engine)


def _link(text: str, hardware: Sequence[Hardware]) -> LinkRates:
    """A link of these machines. One machine has no use for any, so any will do."""
    from bandweave.planning.machines.links import find_link, link_from_text
    from bandweave.planning.machines.ports import own_link_name, why_not_joined
    from bandweave.planning.search.columns import default_link

    several = len(hardware) > 1
    try:
        name = own_link_name(text, hardware)
    except ValueError:
        if several:
            raise
        return default_link(hardware)
    if name is not None:
        return find_link(name)
    link = link_from_text(text)
    if several and "=" not in text and (reason := why_not_joined(link.name, hardware)):
        raise ValueError(f"--link {text}: {reason}")
    return link


def question_of(model: ModelShape, format_name: str | None, values: Mapping[str, Any]) -> Question:
    """The question that the options ask. A context that nobody names holds the prompt and the
    answer; ``ValueError`` where a prompt does not fit into the one that is named."""
    from bandweave.planning.costs.weight_bytes import find_format, stored_format
    from bandweave.planning.search.layout import Question

    context, prompt, answer = values["context"], values["prompt"], int(values["answer"])
    if values.get("users"):
        context = _talk_tokens(values)
        if context > model.context_length:
            raise ValueError(
                f"the conversation comes to {context} tokens, and {model.name} takes at most "
                f"{model.context_length}; give fewer --turns, or shorter --prompt and --answer"
            )
    elif context is None:
        wanted = 0 if prompt is None else prompt + answer
        context = min(max(DEFAULT_CONTEXT, wanted), model.context_length)
    if context > model.context_length:
        raise ValueError(
            f"{model.name} takes a context of at most {model.context_length}, not {context}"
        )
    if prompt is not None and prompt > model.context_length:
        raise ValueError(
            f"--prompt {prompt} is more than {model.name} takes: {model.context_length} tokens"
        )
    if prompt is not None and prompt > context:
        raise ValueError(
            f"--prompt {prompt} does not fit into --context {context}; give a --context of at "
            "least the prompt and the answer, or leave it out"
        )
    if format_name == "stored" or (format_name is None and model.stored_bytes_by_role):
        weights = stored_format(model)
    else:
        weights = find_format(format_name or "q4")
    return Question(
        model=model,
        weights=weights,
        context=context,
        streams=int(values.get("users") or values["streams"]),
        prompt=min(DEFAULT_PROMPT, context) if prompt is None else prompt,
        answer=answer,
        objective=str(values["objective"]),
    )


def _engine(name: str) -> str:
    from bandweave.planning.costs.software import ANY, BANDWEAVE_NAME, find_software

    name = name.strip().lower()
    return name if name in (ANY, BANDWEAVE_NAME) else find_software(name).name


def conversation_of(values: Mapping[str, Any]) -> Conversation | None:
    """What ``--users`` and the options beside it ask; None without it."""
    from bandweave.planning.search.conversation import Conversation

    if not values["users"]:
        return None
    return Conversation(
        users=values["users"],
        turns=values["turns"],
        prompt=DEFAULT_PROMPT if values["prompt"] is None else values["prompt"],
        answer=values["answer"],
        prefix=values["prefix"],
        reuse=values["reuse"],
    )


def _talk_tokens(values: Mapping[str, Any]) -> int:
    talk = conversation_of(values)
    assert talk is not None
    return talk.tokens


def _hardware(text: str, own: Mapping[str, Hardware]) -> list[Hardware]:
    result = []
    for part in _NAMED_PLUS.sub("max ", text).split("+"):
        match = _COUNT.fullmatch(part)
        count, name = (int(match[1]), match[2]) if match else (1, part)
        if not 1 <= count <= _MOST_MACHINES:
            raise ValueError(f"{part.strip()!r}: a plan is for 1 to {_MOST_MACHINES} machines")
        result += [_one(name.strip(), own)] * count
    return result


def _one(name: str, own: Mapping[str, Hardware]) -> Hardware:
    from bandweave.planning.machines.beside import machine_with_cards
    from bandweave.planning.machines.hardware_text import hardware_from_text

    if name in own:
        return own[name]
    try:
        with_its_cards = machine_with_cards(name, lambda part: _one(part, own))
        if with_its_cards is not None:
            return with_its_cards
        found = hardware_from_text(name)
        return found if "=" in name else own.get(found.name, found)
    except ValueError as error:
        near = difflib.get_close_matches(name, own, n=2, cutoff=0.6)
        if near and "=" not in name:
            raise ValueError(f"{error}; your own: {' or '.join(near)}") from error
        raise
