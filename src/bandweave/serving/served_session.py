"""What a loaded model serves, from a session."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bandweave import NUMERICS_VERSION
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.layout import GENERATION_CONFIG
from bandweave.models.config_shape import shape_of
from bandweave.serving.answers.admission import Admission
from bandweave.serving.answers.answering import Answering
from bandweave.serving.answers.served import About, Defaults, Served
from bandweave.serving.answers.syntaxes import find_syntax
from bandweave.serving.session import Session
from bandweave.shown import printable, shown
from bandweave.text.files import TextError, read_object

_ADVISED = (
    ("temperature", 0.0, 100.0),
    ("top_k", -1, (1 << 31) - 1),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("repetition_penalty", 1e-4, 1e4),
)


def serve_session(
    session: Session,
    *,
    name: str,
    admission: Admission,
    any_name: bool = False,
    private_cache: bool = False,
    thought_fields: tuple[str, ...] = ("reasoning_content",),
) -> Served:
    """``name``: by which clients know the model. ``private_cache``: keys share nothing of what was
    computed. The others: see ``Served``."""
    run = session.options.run
    decides = f"{NUMERICS_VERSION} {run.weight_format} {run.kv_format} {run.wire} {session.name}"
    return Served(
        name=name,
        answering=Answering(session.engine, session.tokenizer, private=private_cache),
        tokenizer=session.tokenizer,
        template=session.template,
        admission=admission,
        vocab_size=session.folder.spec.vocab_size,
        syntax=find_syntax(session.template),
        defaults=defaults_of(session.folder),
        fingerprint=f"bandweave-{hashlib.sha256(decides.encode()).hexdigest()[:12]}",
        any_name=any_name,
        thought_fields=thought_fields,
        about=_about(session),
    )


def defaults_of(folder: Folder) -> Defaults:
    """As the model's makers advise, by its ``generation_config.json``. ``TextError`` where that
    advises what makes no sense."""
    if folder.is_gguf:
        return Defaults()
    file = Path(folder.path) / GENERATION_CONFIG
    said = read_object(file)
    values: dict[str, float] = {}
    for name, least, most in _ADVISED:
        value = said.get(name)
        if value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not least <= value <= most:
            raise TextError(
                f"{printable(file)}: {name} is {shown(value)}; it must be from {least:g} to "
                f"{most:g}, or absent"
            )
        values[name] = value
    return Defaults(
        temperature=float(values.get("temperature", 1.0)),
        top_k=max(0, int(values.get("top_k", 0))),
        top_p=float(values.get("top_p", 1.0)) or 1e-9,
        min_p=float(values.get("min_p", 0.0)),
        repetition_penalty=float(values.get("repetition_penalty", 1.0)),
    )


def _about(session: Session) -> About:
    folder, form = session.folder, session.options.run.weight_format
    shape = shape_of(
        folder.spec, name=session.name, architecture=folder.spec.family, runs=True,
        stored_format=form,
    )  # fmt: skip
    return About(
        family=folder.spec.family,
        parameters=shape.total_parameters,
        file_bytes=folder.file_bytes,
        weight_format=form,
    )
