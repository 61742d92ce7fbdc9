"""Tokens to text as it grows, stop strings, tokenizers and chat templates."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from bandweave.synth import tokenizer as synth_tokenizer
from bandweave.synth.tokenizer import tokenizer_config, tokenizer_json
from bandweave.text.byte_alphabet import byte_alphabet
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.codec import LibraryCodec
from bandweave.text.detokenizer import ByteDetokenizer
from bandweave.text.files import TextError
from bandweave.text.stream import TextStream
from bandweave.text.tokenizer import Tokenizer

TEXTS = st.text(alphabet=st.one_of(st.sampled_from("ab é世🎉\ufffd\u200d"), st.characters(
    exclude_categories=["Cs"])), max_size=60)  # fmt: skip
REPETITIVE = st.text(alphabet="ab", max_size=40)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def byte_stream(pieces: list[bytes], stop: tuple[str, ...] = ()) -> TextStream:
    """A stream whose token number n has the bytes of piece n."""
    return TextStream(ByteDetokenizer(lambda token: pieces[token]), stop)


def first_stop(text: str, stop: list[str]) -> tuple[str, str | None]:
    """By search in the whole text: the stop string that ends first, the longest on ties."""
    found = [(text.find(s) + len(s), -len(s), s) for s in stop if s in text]
    if not found:
        return text, None
    end, _, match = min(found)
    return text[: end - len(match)], match


# --- streams ---


@given(TEXTS, st.lists(st.integers(0, 300), max_size=40))
def test_pieces_are_the_text(text: str, cuts: list[int]) -> None:
    pieces = pieces_of(text.encode(), cuts)
    stream = byte_stream(pieces)
    shown = [stream.push(token) for token in range(len(pieces))]
    assert "".join([*shown, stream.flush()]) == text
    for piece in shown:
        piece.encode()  # no half character


@given(
    st.one_of(TEXTS, REPETITIVE),
    st.lists(st.integers(0, 300), max_size=40),
    st.lists(st.one_of(st.text(min_size=1, max_size=4), st.text("ab", min_size=1, max_size=6)),
             max_size=4),
    st.data(),
)  # fmt: skip
def test_stop_strings(text: str, cuts: list[int], stop: list[str], data: st.DataObject) -> None:
    if len(text) > 1:  # and some that do occur
        start = data.draw(st.integers(0, len(text) - 1))
        length = data.draw(st.integers(1, 8))
        stop = [*stop, text[start : start + length]]
    expected, match = first_stop(text, stop)
    pieces = pieces_of(text.encode(), cuts)
    stream = byte_stream(pieces, tuple(stop))
    shown = ""
    for token in range(len(pieces)):
        shown += stream.push(token)
        assert expected.startswith(shown)  # so no part of the stop string was ever shown
    shown += stream.flush()
    assert shown == expected
    assert stream.stopped_by == match
    assert stream.finished == (match is not None)
    if match is not None:
        assert stream.push(0) == "" and stream.flush() == ""


@given(st.binary(max_size=40), st.lists(st.integers(0, 300), max_size=40))
def test_any_bytes_decode_as_a_whole(data: bytes, cuts: list[int]) -> None:
    pieces = pieces_of(data, cuts)
    stream = byte_stream(pieces)
    shown = "".join(stream.push(token) for token in range(len(pieces))) + stream.flush()
    assert shown == data.decode("utf-8", "replace")


def test_text_is_shown_as_soon_as_it_can_be() -> None:
    stream = byte_stream([b"\xe4", b"\xb8", b"\x96 a", b"b", b"c", b"\xf0\x9f"], ("abd",))
    assert [stream.push(token) for token in range(6)] == ["", "", "世 ", "", "abc", ""]
    assert stream.flush() == "\ufffd"


def test_two_stops_that_end_together_or_overlap() -> None:
    for stop, expected, match in [
        (("b", "ab"), "x", "ab"),
        (("abcd", "bc"), "xa", "bc"),
        (("cdx", "abcd"), "x", "abcd"),
    ]:
        stream = byte_stream([b"x", b"abc", b"d"], stop)
        assert "".join(stream.push(token) for token in range(3)) == expected
        assert stream.stopped_by == match


def test_stop_in_the_flushed_rest() -> None:
    stream = byte_stream([b"a\xf0"], ("\ufffd",))
    assert stream.push(0) + stream.flush() == "a"
    assert stream.finished


def test_bad_stops() -> None:
    with pytest.raises(ValueError, match="empty"):
        byte_stream([], ("a", ""))
    with pytest.raises(ValueError, match="list of strings"):
        TextStream(ByteDetokenizer(lambda token: b""), "stop")


HIDDEN = ("<|im_end|>", "<|x|>", "|")


@given(
    st.lists(st.one_of(st.sampled_from(HIDDEN), REPETITIVE, st.sampled_from(["|", "<|x|>"]).map(
        lambda text: f"shown {text}")), max_size=12),
    st.lists(st.integers(0, 300), max_size=10),
    st.lists(st.one_of(st.sampled_from([*HIDDEN, "<|im_", "x|>", "a<|x|>b", "b<|im_end|>"]),
                       st.text("ab|<", min_size=1, max_size=4)), max_size=4),
)  # fmt: skip
def test_stop_strings_with_names_of_tokens_that_are_never_shown(
    pieces: list[str], cuts: list[int], stop: list[str]
) -> None:
    """By search in the whole text, where a match cuts no such name, and in the shown one."""
    tokens: list[tuple[str, bool]] = []
    for piece in pieces:
        if piece in HIDDEN:
            tokens.append((piece, True))
        else:
            shown = piece.removeprefix("shown ").encode()
            tokens += [(part.decode(), False) for part in pieces_of(shown, cuts)]
    expected, match = first_stop_of_tokens(tokens, stop)
    stream = TextStream(
        ByteDetokenizer(lambda token: b"" if tokens[token][1] else tokens[token][0].encode()),
        stop,
        hidden=lambda token: tokens[token][0] if tokens[token][1] else "",
    )
    shown = ""
    for token in range(len(tokens)):
        shown += stream.push(token)
        assert expected.startswith(shown)
        if stream.finished:
            break
    shown += stream.flush()
    assert (shown, stream.stopped_by) == (expected, match)


def first_stop_of_tokens(tokens: list[tuple[str, bool]], stop: list[str]) -> tuple[str, str | None]:
    whole = "".join(text for text, _ in tokens)
    edges, inside, places = 0, set(), []  # cuts in names; of each shown character its place
    for text, hides in tokens:
        if hides:
            inside.update(range(edges + 1, edges + len(text)))
        else:
            places += range(edges, edges + len(text))
        edges += len(text)
    shown = "".join(whole[place] for place in places)
    found = []
    for text in stop:
        for start in range(len(whole)):
            end = start + len(text)
            if whole.startswith(text, start) and not {start, end} & inside:
                found.append((end, start, text))
        for start in range(len(shown)):
            if shown.startswith(text, start):
                found.append((places[start + len(text) - 1] + 1, places[start], text))
    if not found:
        return shown, None
    _, start, match = min(found)
    return "".join(whole[place] for place in places if place < start), match


def test_a_part_of_a_hidden_name_stops_nothing() -> None:
    names = {1: "<|im_end|>"}
    for stop, expected in (
        ("im_end", "ab"),
        ("|>b", "ab"),
        ("<|im_end|>", "a"),
        ("a<|im_end|>b", ""),
    ):
        stream = TextStream(
            ByteDetokenizer(lambda token: {0: b"a", 2: b"b"}.get(token, b"")),
            [stop],
            hidden=lambda token: names.get(token, ""),
        )
        assert "".join(stream.push(token) for token in range(3)) + stream.flush() == expected


# --- tokenizers ---


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Bytes, made-up words, specials, and added tokens that are no bytes' characters."""
    path = tmp_path_factory.mktemp("byte_level")
    (path / "tokenizer.json").write_text(json.dumps(tokenizer_json(600)))
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(512)))
    library = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    library.add_tokens(["plain added", "日本"])
    library.add_special_tokens([AddedToken("<sp>", special=True)])
    library.enable_truncation(5)
    library.enable_padding(length=9)
    library.save(str(path / "tokenizer.json"))
    (path / "config.json").write_text('{"eos_token_id": 5}')
    return Tokenizer.from_folder(path)


@pytest.fixture(scope="module")
def sentencepiece_like() -> Tokenizer:
    """Llama 2's kind: words with a marked space, single bytes for what has no token."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab.update({f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)})
    for token in ["▁", "▁a", "a", "b", "▁b", "ab", "é", "世", "▁世", "."]:
        vocab[token] = len(vocab)
    library = tokenizers.Tokenizer(
        models.BPE(vocab, [("▁", "a"), ("▁", "b"), ("a", "b"), ("▁", "世")],
                   unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )  # fmt: skip
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    library.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return Tokenizer(LibraryCodec(library), eos_token_ids=[2])


def test_encode_and_decode(byte_level: Tokenizer) -> None:
    text = "a long text that is neither cut nor padded 世"
    assert byte_level.encode(text) == [256, *text.encode()]
    assert byte_level.encode(text, special_tokens=False) == [*text.encode()]
    assert byte_level.encode("<|user|>x", special_tokens=False) == [258, ord("x")]
    assert byte_level.decode([256, 65, 258]) == "A"
    assert byte_level.decode([256, 65, 258], skip_special_tokens=False) == "<|begin|>A<|user|>"
    assert byte_level.decode([65, 99999]) == "A"
    assert byte_level.eos_token_ids == (5, 257)
    assert byte_level.bos_token_id == 256
    assert byte_level.size == 603
    assert byte_level.token_to_id("<|end|>") == 257
    assert byte_level.token_to_id("no such") is None
    assert byte_level.id_to_token(257) == "<|end|>"
    assert byte_level.id_to_token(1 << 40) is None
    with pytest.raises(TextError, match="surrogate at character 1"):
        byte_level.encode("a\ud800")
    for token in (-1, 1 << 32):
        with pytest.raises(TextError, match=str(token)):
            byte_level.decode([token])


@given(data=st.data())
def test_byte_level_streams_equal_a_decode_of_the_whole(
    byte_level: Tokenizer, data: st.DataObject
) -> None:
    tokens = data.draw(st.lists(st.one_of(st.integers(0x70, 0xFF), st.integers(0, 610))))
    skip = data.draw(st.booleans())
    detokenizer = byte_level.detokenizer(skip_special_tokens=skip)
    shown = "".join(detokenizer.push(token) for token in tokens) + detokenizer.flush()
    assert shown == byte_level.decode(tokens, skip_special_tokens=skip)


@given(st.lists(st.sampled_from(["a", "b", "ab", " ", " a", "é", "世", "🎉", "ü", ".", "</s>"])))
def test_other_streams_equal_a_decode_of_the_whole(
    sentencepiece_like: Tokenizer, words: list[str]
) -> None:
    tokens = sentencepiece_like.encode("".join(words))
    detokenizer = sentencepiece_like.detokenizer()
    shown = "".join(detokenizer.push(token) for token in tokens) + detokenizer.flush()
    assert shown == sentencepiece_like.decode(tokens)
    assert shown == "".join(words).replace("</s>", "") or "</s>" in words


@pytest.mark.parametrize("prompt", ["once upon a", "a", "世", "a b", "ab.", "🎉"])
@pytest.mark.parametrize("answer", [" b", " a b", "b", "é", " 世", "🎉", " ", ". a"])
def test_an_answer_goes_on_from_its_prompt(
    sentencepiece_like: Tokenizer, prompt: str, answer: str
) -> None:
    before = sentencepiece_like.encode(prompt)
    tokens = sentencepiece_like.encode(prompt + answer)
    if tokens[: len(before)] != before:  # another cut into tokens
        tokens = before + sentencepiece_like.encode("." + answer, special_tokens=False)[2:]
    whole = sentencepiece_like.decode(tokens)
    stream = sentencepiece_like.stream(prompt=before)
    shown = "".join(stream.push(token) for token in tokens[len(before) :]) + stream.flush()
    assert sentencepiece_like.decode(before) + shown == whole
    chat = sentencepiece_like.stream()
    alone = "".join(chat.push(token) for token in tokens[len(before) :]) + chat.flush()
    assert alone == shown.removeprefix(" ")


@given(st.lists(st.integers(0, 280), max_size=50))
def test_other_streams_of_any_tokens_end(sentencepiece_like: Tokenizer, tokens: list[int]) -> None:
    stream = sentencepiece_like.stream(["ab."])
    shown = "".join(stream.push(token) for token in tokens) + stream.flush()
    shown.encode()
    assert "ab." not in shown


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece_like"])
@pytest.mark.parametrize("token", [0x80, 0xC3 + 3, 0x61, 258])
def test_long_answers_take_linear_time(
    kind: str, token: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    decoded = 0
    real = Tokenizer.decode

    def counting(self: Tokenizer, tokens: list[int], **options: bool) -> str:
        nonlocal decoded
        decoded += len(tokens)
        return real(self, tokens, **options)

    monkeypatch.setattr(Tokenizer, "decode", counting)
    stream = tokenizer.stream(["aaaab"])
    for _ in range(2000):
        stream.push(token)
    assert decoded < 2000 * 20


def test_tokenizer_files_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"has no tokenizer.json; copy"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.model").write_text("")
    with pytest.raises(TextError, match=r"tokenizer.model is not read"):
        Tokenizer.from_folder(tmp_path)
    for content in ("{", "{}", "[]", '{"model": {"type": "Unheard"}}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(TextError, match="cannot be used"):
            Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json(300)))
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(TextError, match="no valid JSON"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(b"\xff")
    with pytest.raises(TextError, match="not UTF-8"):
        Tokenizer.from_folder(tmp_path)


def test_byte_alphabet_is_that_of_the_library() -> None:
    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert byte_alphabet() == synth_tokenizer.byte_alphabet()
    assert byte_alphabet()[ord("A")] == "A" and byte_alphabet()[ord(" ")] == "Ġ"
    library = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("\n", "é", "\x7f", "­"):
        ((split, _),) = library.pre_tokenize_str(text)
        assert split == "".join(byte_alphabet()[byte] for byte in text.encode())


# --- chat templates ---

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <b> & é"},
]


def test_llama_3_like_template() -> None:
    template = ChatTemplate(
        "{{- bos_token }}\n"
        "{%- if not date_string is defined %}\n"
        '    {%- set date_string = strftime_now("%d %b %Y") %}\n'
        "{%- endif %}\n"
        "Today: {{ date_string }}\n"
        "{% for message in messages %}\n"
        "    {% if loop.index0 > 5 %}{% break %}{% endif %}\n"
        "<|{{ message.role }}|>{{ message['content'] | trim }}<|eot|>\n"
        "{% endfor %}\n"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        tokens={"bos_token": "<s>"},
        now=lambda: datetime(2026, 7, 1),
    )
    expected = (
        "<s>\nToday: 01 Jul 2026\n<|system|>Be brief.<|eot|>\n<|user|>Hi <b> & é<|eot|>\n"
        "<|assistant|>"
    )
    assert template.render(MESSAGES) == expected.replace("<s>\n", "<s>")
    without = template.render(MESSAGES, add_generation_prompt=False)
    assert without == expected.replace("<s>\n", "<s>").removesuffix("<|assistant|>")
    dated = template.render(MESSAGES, variables={"date_string": "never"})
    assert dated.startswith("<s>Today: never\n")


def test_extras_of_templates() -> None:
    tools = [{"name": "f<", "é": [1, True, None]}]
    template = ChatTemplate(
        "{% for tool in tools %}{{ tool | tojson }}{{ tool | tojson(indent=1) }}{% endfor %}"
        "{% generation %}{{ messages[0].content }}{% endgeneration %}"
        "{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}{{ eos_token }}{{ missing }}"
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}!{% endfor %}"
        "{{ enable_thinking }}"
    )
    shown = template.render(MESSAGES, tools=tools, variables={"enable_thinking": False})
    compact = '{"name": "f<", "é": [1, true, null]}'
    indented = json.dumps(tools[0], indent=1, ensure_ascii=False)
    assert shown == compact + indented + "Be brief.2!False"


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"),
        ("{{ messages[0].missing.deeper }}", "no attribute 'missing'"),
        ("{{ messages[7].content + 'x' }}", "no element 7"),
        ("{{ messages[0].content + 1 }}", "str"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ range(10 ** 9) | list }}", "Range too big"),
        ("{% include 'other' %}", "refuses"),
    ],
)
def test_templates_that_refuse(source: str, part: str) -> None:
    with pytest.raises(TextError, match="chat template refuses") as caught:
        ChatTemplate(source).render(MESSAGES)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "part"),
    [([], "no messages"), ([{"content": "x"}], "message 0"), (["hello"], "message 0"),
     ([MESSAGES[0], {"role": 3}], "message 1")],
)  # fmt: skip
def test_malformed_messages(messages: list, part: str) -> None:
    with pytest.raises(TextError, match=part):
        ChatTemplate("{{ messages }}").render(messages)


def test_template_of_a_folder(tmp_path: Path) -> None:
    config = tmp_path / "tokenizer_config.json"
    with pytest.raises(TextError, match="no chat template"):
        ChatTemplate.from_folder(tmp_path)
    config.write_text('{"chat_template": "one{{ bos_token }}", "bos_token": {"content": "<s>"}}')
    assert ChatTemplate.from_folder(tmp_path).render(MESSAGES) == "one<s>"
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "two"}]
    config.write_text(json.dumps({"chat_template": several}))
    assert ChatTemplate.from_folder(tmp_path).render(MESSAGES) == "two"
    config.write_text(json.dumps({"chat_template": several[:1]}))
    with pytest.raises(TextError, match="tool_use"):
        ChatTemplate.from_folder(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("three")
    assert ChatTemplate.from_folder(tmp_path).render(MESSAGES) == "three"
    (tmp_path / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(TextError, match="cannot be read"):
        ChatTemplate.from_folder(tmp_path)
