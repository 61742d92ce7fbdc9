"""The page in a browser: what it shows, that a model's text does nothing in it, and that it can be
used by keys, on phones, in the dark, and while the server is away."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bandweave.generation.request import Request
from bandweave.serving.answers.syntax import Syntax
from bandweave.serving.http.keys import read_keys
from bandweave.serving.http.server import Server
from bandweave.serving.status.sampler import Sampler
from bandweave.serving.status.service import Service
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.browser import CHROMIUM, Browser, Page
from tests.helpers.machines import PretendCluster, pretend_machines
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")

_MARKDOWN = """**Bold** and `code`:

1. one
2. two

```
a < b
```

| x | y |
|---|---|
| 1 | 2 |
"""
_HOSTILE = """<script>window.hacked = 1</script><img src="http://evil.example/a.png" onerror="hacked=1">
<svg onload="hacked=1"><style>body { display: none }</style><iframe src="//evil.example"></iframe>
<form action="//evil.example"><input name="key"><button>Enter your key</button></form>

![picture](http://evil.example/b.png) [click](javascript:hacked=1) [data](data:text/html,x)
<a href="javascript:hacked=1" id="chat" class="card">a link</a> [good](https://example.org/)
<details open ontoggle="hacked=1"><math><mtext></form><form><mglyph><style></math><img src onerror=hacked=1>
"""  # noqa: E501 (as models may write it)


def _play(request: Request, tokenizer: Tokenizer) -> Script:
    asked = tokenizer.decode(request.tokens)
    if "THINK" in asked:
        return Script(tokens=tokenizer.encode("<think>Let me *see*.</think>Seen."))
    if "HOSTILE" in asked:
        return Script(tokens=tokenizer.encode(_HOSTILE))
    if "ENDLESS" in asked:
        return Script(tokens=tokenizer.encode("word ") * 2000, delay=0.02)
    if "LONG" in asked:
        return Script(tokens=(), reading=30.0, reads=[64])
    if "REFUSED" in asked:
        return Script(tokens=(), failure=ValueError("this cannot be asked"))
    return Script(tokens=tokenizer.encode(_MARKDOWN), reused=3)


@contextmanager
def _serving(**options: Any) -> Iterator[ServerThread]:
    served = served_by(_play, syntax=Syntax(think_open="<think>", think_close="</think>"))
    with (
        Sampler(served.answering.engine, seconds=0.05) as sampler,
        ServerThread(Service(served, sampler), **options) as server,
    ):
        server.app.state.status.show(pretend_machines)
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    with _serving() as server:
        yield server


@pytest.fixture(scope="module")
def opened(browser: Browser, server: ServerThread) -> Iterator[Page]:
    page = browser.page(f"{server.url}/")
    page.until("document.querySelector('main[data-link=live]')")
    yield page
    page.close()


@pytest.fixture
def page(opened: Page, server: ServerThread) -> Iterator[Page]:
    """A page that shows the status; it must neither complain nor ask others for anything."""
    opened.look()
    opened.until("!document.querySelector('.streams li')")
    yield opened
    complaints = list(opened.complaints)
    opened.complaints.clear()
    opened.evaluate("document.querySelector('.chat .head button')?.click()")
    opened.until("!document.querySelector('.message')")
    assert complaints == []
    assert [url for url in opened.requests if not url.startswith((server.url, "data:"))] == []


def _ask(page: Page, words: str) -> None:
    page.until("!document.querySelector('#prompt').placeholder.startsWith('Waiting')")
    page.evaluate("document.querySelector('#prompt').focus()")
    page.type(words)
    page.press("Enter")


def _answered(page: Page, count: int = 1) -> None:
    page.until(f"document.querySelectorAll('.message.assistant .told').length >= {count} && "
               "!document.querySelector('.stop')")  # fmt: skip


@contextmanager
def _asking(server: ServerThread, words: str) -> Iterator[None]:
    """A program that asks, beside the page."""
    one = http.client.HTTPConnection("127.0.0.1", server.port)
    answers: list[http.client.HTTPResponse] = []

    def ask() -> None:
        body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": words}]}
        with suppress(OSError, http.client.HTTPException):
            one.request("POST", "/v1/chat/completions", json.dumps(body),
                        {"Content-Type": "application/json"})  # fmt: skip
            answers.append(one.getresponse())
            answers[0].read()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    yield
    while one.sock is None:
        time.sleep(0.01)
    one.sock.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    one.close()
    for answer in answers:
        answer.close()


def _status(server: ServerThread) -> dict[str, Any]:
    return json.loads(server.ask("GET", "/v1/status")[2])


def test_figures_are_those_of_the_json(page: Page, server: ServerThread) -> None:
    _ask(page, "Write a list")
    _answered(page)
    page.until("document.querySelector('.compared .predicted dd') && "
               "document.querySelector('.bill .bars')", 15)  # fmt: skip
    told = _status(server)

    def same() -> bool:
        shown = page.text('[data-figure="Written"] b'), page.text('[data-figure="Under way"] b')
        return shown == (f"{told['generated_tokens_total']:,}", str(told["running"]))

    page.until(same)
    found = told["prefix_cache_hits_total"]
    assert f"{found} tokens found again" in page.text('[data-figure="Prefix cache"]')
    assert page.text('[data-figure="KV cache"] b') == "10 %"
    assert "10 of 100 pages" in page.text('[data-figure="KV cache"]')
    for name in ("predicted", "limit"):
        figure = float(page.text(f".compared .legend .{name} dd"))
        assert figure == pytest.approx(told[f"{name}_tokens_per_s"], rel=0.01)
    for rank, node in enumerate(told["nodes"]):
        text = page.evaluate(f"document.querySelector('[data-node=\"{rank}\"]').textContent")
        heads = f"heads {node['heads'][0]}–{node['heads'][1] - 1}"
        assert heads in text and f"{100 * node['share']:.0f} %" in text
        memory = node["weight_bytes"] + node["kv_bytes"] + node["work_bytes"]
        assert f"{memory / 1e6:.0f} MB" in text
    assert "43 µs" in page.text(".machines") and "1.16 GB/s" in page.text(".machines")
    bars = page.evaluate("document.querySelectorAll('.bill .bars li').length")
    assert bars == len(told["bill"]["nodes"])
    assert page.text("header .model") == "demo"


def test_requests_are_shown_with_how_far_they_are(page: Page, server: ServerThread) -> None:
    with (
        _asking(server, "LONG " * 200),
        _asking(server, "ENDLESS"),
    ):
        page.until("document.querySelectorAll('.streams li').length === 2")
        page.until("document.querySelector('[data-phase=reading]')")
        told = {one["phase"]: one for one in _status(server)["streams"]}
        whole = told["reading"]["prompt_tokens"]
        assert f"64 of {whole:,} tokens read" in page.text("[data-phase=reading]")
        page.until("document.querySelector('[data-phase=writing] .speeds b').innerText > '10'")
        assert "of 4,096 tokens" in page.text("[data-phase=writing]")
        assert "tokens to read" in page.text('[data-figure="Waiting"]')


def test_a_models_text_is_shown_and_does_nothing(page: Page, server: ServerThread) -> None:
    _ask(page, "HOSTILE")
    _answered(page)
    text = page.text(".message.assistant .marked")
    assert "<script>window.hacked = 1</script>" in text and "Enter your key" in text
    time.sleep(0.2)  # for what would run a little later
    assert page.evaluate("window.hacked === undefined")
    kinds = page.evaluate(
        "[...new Set([...document.querySelectorAll('.marked *')].map((one) => one.localName))]"
    )
    assert set(kinds) <= {"p", "br", "a", "em", "strong", "code", "pre"}, kinds
    attributes = page.evaluate(
        "[...document.querySelectorAll('.marked *')].flatMap((one) => "
        "[...one.attributes].map((each) => each.name + '=' + each.value))"
    )
    assert sorted(attributes) == [
        "href=https://example.org/", "rel=noopener noreferrer nofollow", "target=_blank",
    ]  # fmt: skip


def test_marks_of_text_are_rendered(page: Page, server: ServerThread) -> None:
    _ask(page, "Write a list")
    _answered(page)
    for selector, text in {
        "strong": "Bold", "ol li:last-child": "two", "pre code": "a < b", "td": "1"
    }.items():  # fmt: skip
        assert page.text(f".marked {selector}") == text
    told = page.text(".told")
    # An answer that comes all at once, as on a busy machine, has no speed.
    assert re.match(
        r"68 tokens · ([\d.,]+ tokens/s · )?context \d+ % full · 3 tokens found", told
    ), told
    _ask(page, "REFUSED")
    _answered(page, 2)
    assert page.text(".message:last-child .fault") == "this cannot be asked"
    page.complaints.clear()  # the browser's own about the status 400
    page.click(".chat .head button")
    page.until("!document.querySelector('.message')")


def test_thoughts_are_folded(page: Page) -> None:
    _ask(page, "THINK")
    _answered(page)
    assert page.text(".message.assistant > .marked") == "Seen."
    assert page.evaluate("document.querySelector('.thoughts').open") is False
    page.click(".thoughts summary")
    page.until("document.querySelector('.thoughts').open")
    assert page.text(".thoughts .marked em") == "see"


def test_all_can_be_reached_and_seen_by_keys(page: Page, server: ServerThread) -> None:
    seen = []
    for _ in range(12):
        page.press("Tab")
        seen.append(page.evaluate(
            "(() => { const one = document.activeElement, style = getComputedStyle(one);"
            "const name = one.getAttribute('aria-label') || one.id || one.innerText;"
            "return [name, parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== 'none',"
            "one.getBoundingClientRect().top >= 0]; })()"
        ))  # fmt: skip
    names = [name for name, *_ in seen]
    for wanted in ("Skip to the content", "Light", "Auto", "Dark", "Conversation", "prompt",
                   "status", "metrics"):  # fmt: skip
        assert wanted in names, (wanted, names)
        assert seen[names.index(wanted)][1:] == [True, True], wanted
    _ask(page, "ENDLESS")
    page.until("document.querySelector('.stop') && document.querySelector('.marked')")
    page.press("Tab")
    page.press("Enter")
    _answered(page)
    assert page.text(".told").endswith("stopped")


@pytest.fixture
def clustered(server: ServerThread) -> Iterator[None]:
    status = server.app.state.status
    status.show(pretend_machines, PretendCluster())
    yield
    status.show(pretend_machines)


def test_the_cluster_is_shown_by_groups_and_recoveries_in_parts(
    page: Page, server: ServerThread, clustered: None
) -> None:
    page.until("document.querySelectorAll('.cluster .group').length === 2")
    assert page.text(".cluster .head p") == (
        "2 groups · 2 of 5 machines serve · 7 changes since the start"
    )
    told = _status(server)
    assert [(one["group"], one["share"]) for one in told["members"]][:2] == [(0, 0.6), (0, 0.4)]
    lines = page.evaluate(
        "[...document.querySelectorAll('.members li')]"
        ".map((one) => one.innerText.replace(/\\s+/g, ' '))"
    )
    assert lines == [
        "node 0 (10.0.0.1:7101) 60 % of the weights serves",
        "node 1 (10.0.0.2:7101) 40 % of the weights serves, 2.5 times slower than it was",
        "node 2 (10.0.0.3:7101) spare",
        "node 0 (10.0.1.1:7101) loads",
        "node 1 (10.0.1.2:7101) down node 1 (10.0.1.2:7101) made no progress for 5.0 s",
    ]
    assert "Group 1 does not serve" in page.text('[data-group="1"] h3')
    assert page.text(".recoveries li[data-kind]").endswith("Not over yet.")
    assert page.text(".recoveries ol li:last-child .muted") == (
        "3 to 2 nodes, 4 streams went on after 400 ms: notice 10 ms, plan 40 ms, load 200 ms, "
        "prefill 150 ms."
    )
    widths = page.evaluate(
        "[...document.querySelectorAll('.recoveries ol li:last-child .bar i')]"
        ".map((one) => one.getBoundingClientRect().width)"
    )
    assert len(widths) == 4 and widths[2] > widths[1]  # load is longer than plan
    for width in (320, 820):
        page.look(width=width, height=740)
        page.until(f"document.scrollingElement.scrollWidth === {width}")
        assert page.evaluate(
            "[...document.querySelectorAll('.cluster *')].every((one) => "
            "one.getBoundingClientRect().right <= innerWidth + 1)"
        )


def test_a_machine_alone_has_no_cluster(page: Page) -> None:
    page.until("document.querySelector('.node') && !document.querySelector('.cluster')")


_CONTRAST = """
((pairs) => {
  const css = getComputedStyle(document.documentElement);
  const light = (name) => {
    const [r, g, b] = css.getPropertyValue(name).trim().slice(1).match(/../g)
      .map((one) => parseInt(one, 16) / 255)
      .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return pairs.map(([a, b]) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  });
})(%s)
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_by_day_and_night(page: Page, dark: bool) -> None:
    page.look(dark=dark)
    # The page hears of it with the browser's next frame.
    page.until(f"document.documentElement.dataset.theme === '{'dark' if dark else 'light'}'")
    pairs = [[text, ground] for text in ("--ink", "--muted", "--accent", "--bad")
             for ground in ("--card", "--page", "--sunk")]  # fmt: skip
    pairs += [["--accent-ink", "--accent"], ["--bad", "--bad-wash"], ["--muted", "--rail"]]
    found = page.evaluate(_CONTRAST % json.dumps(pairs))
    for pair, contrast in zip(pairs, found, strict=True):
        assert contrast >= 4.5, (pair, contrast)
    bars = [[f"--c-{name}", "--card"] for name in ("weights", "attention", "wire", "sampling")]
    assert min(page.evaluate(_CONTRAST % json.dumps(bars))) >= 3
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click(f'[aria-label="{"Light" if dark else "Dark"}"]')
    page.until(f"getComputedStyle(document.body).backgroundColor !== '{ground}'")
    page.click('[aria-label="Auto"]')
    page.until(f"getComputedStyle(document.body).backgroundColor === '{ground}'")


@pytest.mark.parametrize("width", [320, 360, 820, 1280])
def test_it_fits_windows_of_all_widths(page: Page, server: ServerThread, width: int) -> None:
    page.look(width=width, height=740)
    with _asking(server, "ENDLESS"):
        page.until("document.querySelector('.streams li') && document.querySelector('.node')")
        wide = "document.scrollingElement.scrollWidth"
        assert page.evaluate(wide) == width
        cut = page.evaluate(
            "[...document.querySelectorAll('.overview *')].filter((one) => "
            "one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML)"
        )
        assert cut == []
        if width < 1000:
            assert page.evaluate("document.querySelector('.chat').offsetHeight === 0")
            page.click(".views button:last-child")
        page.until("document.querySelector('.chat').offsetHeight > 300")
        assert page.evaluate(wide) == width
        bottom = "document.querySelector('.composer').getBoundingClientRect().bottom"
        assert page.evaluate(f"{bottom} <= innerHeight")
        page.click(".views button:first-child")


def test_a_server_that_goes_is_missed_and_found_again(browser: Browser) -> None:
    with _serving() as server:
        page = browser.page(f"{server.url}/")
        page.until("document.querySelector('main[data-link=live]')")
        assert page.evaluate("document.querySelector('.notice').hidden")
        port = server.port
    page.until("document.querySelector('main[data-link=lost]')")
    page.until("document.querySelector('.notice').innerText.includes('Trying again')")
    assert page.text('[data-figure="KV cache"] b') == "10 %"  # the last picture stays
    page.complaints.clear()  # the browser's own about connections
    again = ServerThread(served_by(_play))
    again._socket.close()
    sock = socket.create_server(("127.0.0.1", port))
    server = Server(again.app)
    with server:
        server.start(sock)
        page.click(".notice button")
        page.until("document.querySelector('main[data-link=live]')")
        assert page.evaluate("document.querySelector('.notice').hidden")
    sock.close()
    page.close()


def test_a_key_is_asked_for_and_kept_in_the_tab(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("a-key-that-is-long-enough ann\n")
    path.chmod(0o600)
    with _serving(keys=read_keys(path)) as server:
        page = browser.page(f"{server.url}/")
        page.until("document.querySelector('#key')")
        assert page.evaluate("document.activeElement.id") == "key"
        assert "demo" not in page.text("body")
        page.type("a-wrong-key")
        page.press("Enter")
        page.until("document.querySelector('#key-why')?.innerText")
        assert page.text("#key-why") == "The server does not know this key."
        page.evaluate("document.querySelector('#key').value = ''")
        page.evaluate("document.querySelector('#key').focus()")
        page.type("a-key-that-is-long-enough")
        page.press("Enter")
        page.until("document.querySelector('main[data-link=live]')")
        page.complaints.clear()  # the browser's own about the status 401
        _ask(page, "ENDLESS")
        page.until("document.querySelector('.streams .tag')?.innerText === 'ann'")
        assert page.evaluate("sessionStorage.getItem('bandweave.key')")
        assert not page.evaluate("JSON.stringify(localStorage).includes('long-enough')")
        page.click("header .quiet")
        page.until("document.querySelector('#key')")
        assert page.complaints == [] or "401" in page.complaints[0]
        page.close()


def test_an_engine_without_a_model_yet_is_shown_so(browser: Browser) -> None:
    with ServerThread(Service()) as server:
        page = browser.page(f"{server.url}/")
        page.until("document.querySelector('.notice')?.innerText === 'The model is loading.'")
        assert page.text("header .link") == "Loading"
        assert page.evaluate("document.querySelector('.composer button').disabled")
        assert page.complaints == []
        page.close()
