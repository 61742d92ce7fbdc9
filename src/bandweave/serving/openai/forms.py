"""What an answer must look like, as OpenAI's clients say it, and those of other servers."""

from __future__ import annotations

import json
from typing import Any

from bandweave.serving.answers.grammars import Form
from bandweave.serving.errors import bad, unsupported
from bandweave.serving.fields import Fields

_MOST_CHOICES, _MOST_GRAMMAR = 1024, 1 << 15
#: vLLM's names, today's and those before.
_FIELDS = {
    "json": "guided_json",
    "regex": "guided_regex",
    "choice": "guided_choice",
    "grammar": "guided_grammar",
    "json_object": "guided_json_object",
}


def read_form(fields: Fields) -> Form | None:
    """The one form that a request asks for; ``ApiError`` for two."""
    found = [
        form
        for form in (
            _response_format(fields),
            *(_one(fields, name, field) for name, field in _FIELDS.items()),
            _structured(fields),
            _schema(fields, "json_schema"),
            _grammar(fields, "grammar"),
        )
        if form is not None
    ]
    if len(found) > 1:
        names = ", ".join(form.field for form in found)
        raise bad(f"an answer can have one form, but {names} each ask for one", found[1].field)
    return found[0] if found else None


def _response_format(fields: Fields) -> Form | None:
    """OpenAI's; llama-server has the schema beside the type."""
    given = fields.object("response_format")
    if given is None:
        return None
    kind = given.one_of("type", ("text", "json_object", "json_schema"))
    if kind == "text":
        return None
    wrapped = given.object("json_schema")
    holder = wrapped if wrapped is not None and wrapped.has("schema") else given
    if kind == "json_schema":
        if wrapped is None and not given.has("schema"):
            raise bad("response_format.json_schema is missing", "response_format.json_schema")
        if wrapped is not None:
            _check_names(wrapped)
    if not holder.has("schema"):
        return Form(kind="json")
    return Form(kind="schema", value=_as_schema(holder, "schema"))


def _check_names(wrapped: Fields) -> None:
    name = wrapped.text("name", "")
    if len(name) > 256:
        raise bad(f"{wrapped.name('name')} has more than 256 characters", wrapped.name("name"))
    wrapped.flag("strict")  # all are kept to strictly


def _structured(fields: Fields) -> Form | None:
    """vLLM's."""
    given = fields.object("structured_outputs")
    if given is None:
        return None
    if given.has("structural_tag"):
        raise unsupported("structured_outputs.structural_tag", "use tools")
    found = [form for name in _FIELDS if (form := _one(given, name, name)) is not None]
    if len(found) > 1:
        raise bad("structured_outputs asks for several forms; an answer can have one",
                  "structured_outputs")  # fmt: skip
    return found[0] if found else None


def _one(fields: Fields, kind: str, field: str) -> Form | None:
    if not fields.has(field):
        return None
    name = fields.name(field)
    if kind == "json":
        return _schema(fields, field)
    if kind == "json_object":
        return Form(kind="json", field=name) if fields.flag(field) else None
    if kind == "regex":
        return Form(kind="regex", value=fields.text(field), field=name)
    if kind == "grammar":
        return _grammar(fields, field)
    texts = fields.list(field, most=_MOST_CHOICES)
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise bad(f"{name} must be a list of texts, none empty", name)
    return Form(kind="choice", value=list(texts), field=name)


def _schema(fields: Fields, field: str) -> Form | None:
    if not fields.has(field):
        return None
    return Form(kind="schema", value=_as_schema(fields, field), field=fields.name(field))


def _as_schema(fields: Fields, field: str) -> Any:
    """An object, true or false; vLLM takes the text of one, too."""
    value = fields.any(field)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            name = fields.name(field)
            raise bad(f"{name} is no JSON: {str(error)[:200]}", name) from error
    if not isinstance(value, (dict, bool)):
        raise bad(f"{fields.name(field)} must be a JSON schema, an object", fields.name(field))
    return value


def _grammar(fields: Fields, field: str) -> Form | None:
    """llama.cpp's GBNF, or Lark as llguidance knows it."""
    if not fields.has(field):
        return None
    name = fields.name(field)
    text = fields.text(field)
    if not text.strip():
        return None
    if len(text) > _MOST_GRAMMAR:
        raise bad(f"{name} has {len(text)} characters; there may be {_MOST_GRAMMAR}", name)
    if "::=" in text:
        text = _from_gbnf(text, name)
    return Form(kind="lark", value=text, field=name)


def _from_gbnf(text: str, name: str) -> str:
    try:
        from llguidance.gbnf_to_lark import any_to_lark  # an extra
    except ImportError as error:
        raise bad(f"{name} needs the library for grammars, which is not installed here; install "
                  "it with pip install 'bandweave[serve]'", name) from error  # fmt: skip
    try:
        return any_to_lark(text)
    except Exception as error:  # its parser raises whatever it meets
        raise bad(f"{name} is no grammar: {str(error)[:200]}", name) from error
