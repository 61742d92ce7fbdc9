"""The kinds of files that are fuzzed: how each is made, and what reads it.

What reads a file goes on as a command would: a tokenizer encodes, a template renders.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.model_files import shape_from_path
from bandweave.checkpoints.safetensors import SafetensorsFile, encode_header
from bandweave.cli.plan.setup import read_hardware_file
from bandweave.models.known_models import known_config, model_names
from bandweave.models.registry import spec_from_config
from bandweave.planning.machines.hardware_text import hardware_from_text
from bandweave.ranges import Range
from bandweave.serving.profile_store import read_profile
from bandweave.synth.tokenizer import tokenizer_config, tokenizer_json
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.end_tokens import end_token_ids
from bandweave.text.tokenizer import Tokenizer
from tests.fuzz import gguf_kinds
from tests.fuzz.mutate import damaged_bytes, damaged_json, damaged_text
from tests.fuzz.sentences import check_sentence
from tests.helpers.stored_formats import write_tensors
from tests.helpers.stored_models import CONFIG as QUANTISED
from tests.helpers.stored_models import FORMATS, encoded
from tests.test_checkpoints import CONFIG, random_tensors, write_folder
from tests.transformers_reference import config_cases, token_cases

_PROFILE = Path(__file__).parent.parent / "data" / "profile.json"
_TEMPLATE = tokenizer_config(64)["chat_template"]
_MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b> é"}]

Chance = random.Random


@dataclass(frozen=True, kw_only=True)
class Kind:
    """``prepare`` makes what does not change, once, in a folder of its own; ``make`` writes one
    damaged input there; ``read`` reads it. ``seconds``: of the processor, at most."""

    make: Callable[[Path, Chance], None]
    read: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda folder: None
    seconds: float = 1.0


def _model(folder: Path, shards: int) -> None:
    write_folder(folder, CONFIG, random_tensors(CONFIG), shards)


# --- config.json ---

_CONFIGS = [known_config(name) for name in model_names()]
_CONFIGS += [{**CONFIG, **case} for case in config_cases.cases()[:60]]


def _make_config(folder: Path, chance: Chance) -> None:
    config = {**CONFIG, "tie_word_embeddings": False}
    if chance.random() < 0.6:
        config = chance.choice(_CONFIGS)
    (folder / "config.json").write_bytes(damaged_json(config, chance))


def _read_config(folder: Path) -> None:
    for read in (shape_from_path, end_token_ids, _spec_alone):
        try:
            read(folder)
        except ValueError as error:
            check_sentence(error)
    _open(folder)


def _spec_alone(folder: Path) -> None:
    """Without the checks of the file before it."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(config, dict):
        spec_from_config(config)


def _open(folder: Path) -> None:
    with Folder.open(folder) as opened:
        opened.fingerprint()


# --- safetensors ---


def _make_safetensors(folder: Path, chance: Chance) -> None:
    tensors = random_tensors(CONFIG)
    header = json.loads(encode_header([(n, "F32", t.shape) for n, t in tensors.items()])[8:])
    data = bytes(max(entry["data_offsets"][1] for name, entry in header.items()
                     if not name.startswith("__")))  # fmt: skip
    if chance.random() < 0.6:
        text = damaged_json(header, chance)
        content = len(text).to_bytes(8, "little") + text + data
    else:
        text = json.dumps(header).encode()
        content = damaged_bytes(len(text).to_bytes(8, "little") + text + data[:100], chance)
    (folder / "model.safetensors").write_bytes(content)


def _read_safetensors(folder: Path) -> None:
    for read in (_open, shape_from_path):
        try:
            read(folder)
        except ValueError as error:
            check_sentence(error)
    SafetensorsFile.open(folder / "model.safetensors").close()


def _make_index(folder: Path, chance: Chance) -> None:
    path = folder / "sound.json"
    if not path.exists():
        (folder / "model.safetensors.index.json").rename(path)
    (folder / "model.safetensors.index.json").write_bytes(
        damaged_json(json.loads(path.read_bytes()), chance)
    )


# --- quantised checkpoints ---

_FORMS = ("fp8 blocks", "mxfp4", "int4 order", "awq", "gptq order")


def _make_quantised(folder: Path, chance: Chance) -> None:
    """A sound file of another shape, dtype or name here and there, or codes and scales that are
    any bits, with settings that may be wrong."""
    name = chance.choice(_FORMS)
    form, tensors = FORMATS[name], dict(encoded(name)[0])
    for _ in range(chance.randint(0, 2)):
        name = chance.choice([name for name in tensors if "_proj" in name])
        dtype, array = tensors.pop(name)
        if chance.random() < 0.3:
            array = array[: len(array) // 2] if array.ndim else array
        elif chance.random() < 0.5:
            array = np.frombuffer(chance.randbytes(array.nbytes), array.dtype).reshape(array.shape)
        if chance.random() < 0.8:
            tensors[name] = dtype, array
    write_tensors(folder / "model.safetensors", tensors)
    config = {**QUANTISED, "quantization_config": form.config}
    text = json.dumps(config).encode()
    if chance.random() < 0.4:
        settings = damaged_json({"quantization_config": form.config}, chance)
        text = text[:-1] + b"," + settings[1:]
    (folder / "config.json").write_bytes(text)


def _read_quantised(folder: Path) -> None:
    with Folder.open(folder) as opened:
        for name in opened.names():
            rows = Range(start=0, stop=opened.shape(name)[0])
            opened.read(name, rows)


# --- tokens ---


def _make_tokenizer(folder: Path, chance: Chance) -> None:
    own = tokenizer_json(300)
    if chance.random() < 0.5:
        kind = chance.choice(("byte-level", "marked"))
        own = token_cases.tokenizer_json(kind, [chance.random() < 0.5 for _ in token_cases.OWN])
    (folder / "tokenizer.json").write_bytes(damaged_json(own, chance))


def _make_token_files(folder: Path, chance: Chance) -> None:
    case = chance.choice(_TOKEN_CASES)
    for path in folder.glob("*.json"):
        path.unlink()
    token_cases.write(folder, case)
    names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
             "generation_config.json", "config.json")  # fmt: skip
    for name in chance.sample(names, chance.randint(1, 2)):
        sound = case["files"].get(name) or tokenizer_config(64)
        (folder / name).write_bytes(damaged_json(sound, chance))


_TOKEN_CASES = token_cases.cases()


def _read_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder, vocab_size=310)
    ids = tokenizer.encode("Hi <|user|> é</s>世 <tool>")
    tokenizer.encode("", special_tokens=False)
    tokenizer.decode([token for token in ids if token < 1 << 32])
    for prompt in ((), ids[:4]):
        stream = tokenizer.stream(["<|end|>", "x"], prompt=prompt)
        text = "".join(stream.push(token) for token in [*ids, *range(50, 320, 7), 10**6])
        (text + stream.flush()).encode()
    if ChatTemplate.is_in(folder):
        ChatTemplate.from_folder(folder, tokens=tokenizer.named_tokens).render(_MESSAGES)


# --- templates ---

_PIECES = (
    "{{ bos_token }}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if m.role == 'user' %}",
    "{% else %}",
    "{% endif %}",
    "{{ m.content | trim }}",
    "{% set x = m.content ~ x %}",
    "{% set ns = namespace(a='a') %}",
    "{% set ns.a = ns.a * 1000 %}",
    "{% set ns.a = ns.a ~ ns.a %}",
    "{% for i in range(99999) %}",
    "{% macro f(n) %}",
    "{% endmacro %}",
    "{{ f(9) }}",
    "{{ f() }}",
    "{{ messages | tojson }}",
    "{{ messages | tojson(indent=10 ** 9) }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ '%999999999d' % 3 }}",
    "{{ raise_exception('no') }}",
    "{{ x.y.z }}",
    "{% break %}",
    "{% continue %}",
    "{% generation %}",
    "{% endgeneration %}",
    "{{ ''.__class__ }}",
    "{{ lipsum() }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% filter upper %}",
    "{% endfilter %}",
    "{% call f(1) %}",
    "{% endcall %}",
    "{% set a %}",
    "{% endset %}",
    "{% block b %}",
    "{% endblock %}",
    "{{ loop.index }}",
    "{{ loop(messages) }}",
    "{{ messages | map('x') | list }}",
    "{{ messages | groupby('role') }}",
    "{{ cycler(1).next() }}",
    "{{ joiner() }}",
    "{# ",
    " #}",
    "{% raw %}",
    "{% endraw %}",
    "{{ (1, 2)[5] }}",
    "{{ {}['a'] }}",
    "{{ messages[99].content }}",
    "{{ 'a' | center(10 ** 9) }}",
    "{{ range(10 ** 9) }}",
    "{{ strftime_now('%Y') }}",
    "{{ -1 / 0 }}",
    "{% autoescape true %}",
    "{% endautoescape %}",
    "{% with %}",
    "{% endwith %}",
    "((((",
    "[" * 300,
)


#: Blocks that hold others, and expressions for them.
_BLOCKS = (
    ("{% for x in E %}", "{% endfor %}"),
    ("{% for x in messages recursive %}", "{{ loop(messages) }}{% endfor %}"),
    ("{% if E %}", "{% else %}!{% endif %}"),
    ("{% set ns.a %}", "{% endset %}"),
    ("{% macro f(n=9) %}", "{{ f(n - 1) if n else E }}{% endmacro %}{{ f() }}"),
    (
        "{% macro g(n=40) %}{% if n %}{{ g(n - 1) }}",
        "{{ g(n - 1) }}{% endif %}{% endmacro %}{{ g() }}",
    ),
    ("{% filter F %}", "{% endfilter %}"),
    ("{% generation %}", "{% endgeneration %}"),
    ("{% call(y) caller_of() %}", "{% endcall %}"),
)
_EXPRESSIONS = (
    "messages",
    "range(9)",
    "range(99999)",
    "'a'",
    "x",
    "1",
    "7",
    "ns.a",
    "bos_token",
    "m.n",
    "messages | map(attribute='content') | list",
    "[ns.a, ns.a]",
    "ns.a | F",
    "ns.a ~ ns.a",
    "ns.a * 100",
    "ns.a + ns.a",
    "'%9999d' % 7",
    "ns.a | length",
    "messages[0].content * 9999",
    "range(99999) | list * 99",
    "ns.a is string",
    "10 ** 300",
    "ns.a ** 3",
    "lipsum(9)",
    "ns.a[:9]",
    "'{:>99999}'.format(ns.a)",
    "messages | tojson(indent=9999)",
    "ns.a | replace('a', 'aaaaaaaa')",
)
_FILTERS = (
    "upper",
    "trim",
    "string",
    "list",
    "join(',')",
    "tojson",
    "length",
    "reverse",
    "sort",
    "first",
    "center(99999)",
    "indent(999)",
    "wordwrap(2)",
    "replace('a', 'bb')",
    "batch(99) | list",
    "sum",
    "urlize",
    "striptags",
    "pprint",
    "unique | list",
    "truncate(9)",
    "format(1)",
    "random",
    "title",
)


def _well_formed(chance: Chance, depth: int) -> str:
    """A template whose blocks all end."""
    parts = []
    for _ in range(chance.randint(1, 3)):
        action = chance.random()
        if action < 0.5 and depth:
            start, end = chance.choice(_BLOCKS)
            parts.append(start + _well_formed(chance, depth - 1) + end)
        elif action < 0.8:
            parts.append("{% set ns.a = E %}")
        else:
            parts.append("{{ E }}")
    text = "".join(parts)
    while "E" in text or "F" in text:
        text = text.replace("E", chance.choice(_EXPRESSIONS), 1)
        text = text.replace("F", chance.choice(_FILTERS), 1)
    return text


def _make_template(folder: Path, chance: Chance) -> None:
    action = chance.random()
    if action < 0.3:
        source = damaged_text(_TEMPLATE, chance, _PIECES)
    elif action < 0.8:
        source = "{% set ns = namespace(a='ab') %}" + _well_formed(chance, 4)
    else:
        source = "".join(chance.choice(_PIECES) for _ in range(chance.randint(1, 14)))
    (folder / "chat_template.jinja").write_bytes(source.encode("utf-8", "surrogatepass"))


def _read_template(folder: Path) -> None:
    ChatTemplate.from_folder(folder).render(_MESSAGES)


# --- the planner's ---

_HARDWARE = """\
[mine]
bandwidth = "204GB/s"
memory = "256 GB"
flops = "4 TFLOP/s"
kind = "cpu-server"
watts = 200
price = "1500 USD"

["a b"]
bandwidth = "80Gbit/s"
memory = "1e3GB"
"""
_TOML = (
    "[x]",
    "[[x]]",
    "= 3",
    "bandwidth = 1",
    "memory = nan",
    "memory = inf",
    "watts = 0x" + "f" * 400,
    "price = " + "9" * 5000,
    "watts = -1",
    "kind = []",
    "name = 3",
    "x.y.z = 1",
    "a = " + "[" * 2000,
    '"""',
    "'",
    "kind = {}",
    "memory = 1979-05-27",
    "\\u0000",
    "host = true",
    "memory = '1e400GB'",
    "memory = '" + "9" * 3000 + "GB'",
    "[" + "a." * 500 + "b]",
    "memory = 1e999",
    "[mine]",
)


def _make_hardware(folder: Path, chance: Chance) -> None:
    text = damaged_text(_HARDWARE, chance, tuple(f"\n{one}\n" for one in _TOML))
    content = text.encode("utf-8", "surrogatepass")
    (folder / "hardware.toml").write_bytes(
        damaged_bytes(content, chance) if chance.random() < 0.1 else content
    )
    line = damaged_text("bandwidth=204GB/s,memory=256GB,flops=4TFLOPS,watts=3", chance, _TOML)
    (folder / "text").write_text(line, encoding="utf-8", errors="surrogatepass")


def _read_hardware(folder: Path) -> None:
    try:
        hardware_from_text((folder / "text").read_text("utf-8", "surrogatepass"))
    except ValueError as error:
        check_sentence(error)
    read_hardware_file(folder / "hardware.toml")


def _make_profile(folder: Path, chance: Chance) -> None:
    sound = json.loads(_PROFILE.read_bytes())
    (folder / "profile.json").write_bytes(damaged_json(sound, chance))


KINDS: Mapping[str, Kind] = {
    "config": Kind(prepare=lambda folder: _model(folder, 1), make=_make_config, read=_read_config),
    "safetensors": Kind(
        prepare=lambda folder: _model(folder, 1), make=_make_safetensors, read=_read_safetensors
    ),
    "index": Kind(prepare=lambda folder: _model(folder, 2), make=_make_index, read=_open),
    "quantised": Kind(make=_make_quantised, read=_read_quantised),
    "tokenizer": Kind(make=_make_tokenizer, read=_read_tokenizer),
    "tokenizer_config": Kind(make=_make_token_files, read=_read_tokenizer),
    "gguf": Kind(make=gguf_kinds.make_model, read=gguf_kinds.read_model),
    "gguf_parts": Kind(make=gguf_kinds.make_parts, read=gguf_kinds.read_parts),
    "gguf_tokenizer": Kind(make=gguf_kinds.make_tokenizer, read=gguf_kinds.read_tokenizer),
    "profile": Kind(make=_make_profile, read=lambda folder: read_profile(folder / "profile.json")),
    "hardware": Kind(make=_make_hardware, read=_read_hardware),
    # What a template may take, and what its last step takes.
    "template": Kind(make=_make_template, read=_read_template, seconds=3.0),
}
