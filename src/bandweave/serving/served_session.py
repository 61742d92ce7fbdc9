"""What a loaded model serves, from a session."""

from __future__ import annotations

import hashlib

from bandweave import NUMERICS_VERSION
from bandweave.models.config_shape import shape_of
from bandweave.serving.answers.admission import Admission
from bandweave.serving.answers.answering import Answering
from bandweave.serving.answers.served import About, Served
from bandweave.serving.answers.syntaxes import find_syntax
from bandweave.serving.session import Session


def serve_session(session: Session, *, name: str, any_name: bool, admission: Admission) -> Served:
    """``name``: by which clients know the model."""
    run = session.options.run
    decides = f"{NUMERICS_VERSION} {run.weight_format} {run.kv_format} {run.wire} {session.name}"
    return Served(
        name=name,
        answering=Answering(session.engine, session.tokenizer),
        tokenizer=session.tokenizer,
        template=session.template,
        admission=admission,
        vocab_size=session.folder.spec.vocab_size,
        syntax=find_syntax(session.template),
        fingerprint=f"bandweave-{hashlib.sha256(decides.encode()).hexdigest()[:12]}",
        any_name=any_name,
        about=_about(session),
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
