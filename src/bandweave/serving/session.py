"""Session: an open model: its files, tokenizer, chat template and engine.

Turns text into tokens for the engine and its tokens into text. Knows no terminals: a ``Watcher``
hears what goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bandweave.checkpoints.folder import Folder
from bandweave.engine.bill import Bill, make_bill, same_nodes
from bandweave.engine.engine import NodeStatistics
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import settle_format
from bandweave.executors.executor import StepError
from bandweave.generation.request import Request, Timing
from bandweave.generation.sampling import SamplingParams
from bandweave.hub.resolve import resolve_model
from bandweave.planning.profile.prediction import Prediction
from bandweave.serving.engine_start import AnyEngine, Tell, start_engine
from bandweave.serving.gathering import Gathering
from bandweave.serving.prediction import (
    find_predictor,
    predict_answers,
    stored_profile,
)
from bandweave.serving.texts import OpeningTexts
from bandweave.serving.watcher import Watch, unwatched
from bandweave.shown import printable
from bandweave.text.chat_template import ChatTemplate, Message
from bandweave.text.files import TextError
from bandweave.text.tokenizer import Tokenizer

OnText = Callable[[str], None]
OnRead = Callable[[int], None]  # tokens of the prompt that have been read


class AnswerLost(StepError):
    """A failure of the nodes in the midst of an answer; ``text`` and ``tokens`` are what had
    come."""

    def __init__(self, sentence: str, text: str, tokens: tuple[int, ...]) -> None:
        super().__init__(sentence)
        self.text, self.tokens = text, tokens


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a prompt. ``finish_reason``: ``"stop"`` (an end token or a stop string),
    ``"length"``, ``"cancelled"``, or ``"error"``, which ``error`` explains; ``tokens`` are those
    that the text is made of, and the end token; ``logits_digest`` is over exactly those, empty if
    not asked for."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    logits_digest: str
    timing: Timing
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Session:
    """See ``open_session``. ``template`` is None for models that were not trained to chat.
    ``start_seconds``: what the start took, by part; ``texts`` were opened beside the others."""

    name: str
    folder: Folder
    options: EngineOptions
    engine: AnyEngine
    tokenizer: Tokenizer
    template: ChatTemplate | None
    load_seconds: float
    start_seconds: Mapping[str, float] = field(default_factory=dict)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation, up to where the model's answer starts."""
        if self.template is None:
            raise TextError(
                f"{self.name} has no chat template, as models have that were not trained to "
                "chat; use `bandweave run --raw`"
            )
        return self.tokenizer.encode(self.template.render(messages), special_tokens=False)

    def answer(
        self,
        tokens: Sequence[int],
        params: SamplingParams,
        *,
        on_text: OnText = lambda piece: None,
        digest: bool = False,
        on_read: OnRead = lambda tokens: None,
        cancelled: Callable[[], bool] = lambda: False,
        goes_on: bool = False,
    ) -> Answer:
        """Generates one answer; ``on_text`` sees its text piece by piece, never a stop string, and
        ``on_read`` hears now and then how far a long prompt has been read, and when it is.

        ``goes_on``: the answer goes on with the prompt's own text, as the space before its first
        word shows. ``AnswerLost`` where a node fails.
        """
        stream = self.tokenizer.stream(params.stop, prompt=tokens if goes_on else ())
        pieces: list[str] = []
        heard: list[int] = []
        over = False

        def show(piece: str) -> None:
            if piece:
                pieces.append(piece)
                on_text(piece)

        def on_token(index: int, token: int) -> bool:
            nonlocal over
            if not heard:
                on_read(len(tokens))
            if over:
                return False  # said once already; the node may have been ahead of us
            over = cancelled()
            if not over:
                heard.append(token)
                show(stream.push(token))
                over = stream.finished
            return over

        end_tokens = frozenset(self.tokenizer.eos_token_ids)
        request = Request(tokens=tuple(tokens), params=params, end_tokens=end_tokens)
        try:
            result = self.engine.generate(
                [request], on_token=on_token, on_read=on_read, digest=digest
            )[0]
        except StepError as error:
            show(stream.flush())
            raise AnswerLost(str(error), "".join(pieces), tuple(heard)) from error
        kept = len(heard)
        show(stream.flush())
        reason = "stop" if stream.finished else result.reason
        logits_digest = result.logits_digest
        if digest and kept < len(result.tokens):
            # The nodes went on for a while after the stop string; how far depends on the clock.
            logits_digest = result.digests[kept - 1] if kept else hashlib.sha256().hexdigest()
        return Answer(
            text="".join(pieces),
            tokens=result.tokens[:kept],
            finish_reason=reason,
            prompt_tokens=len(tokens),
            logits_digest=logits_digest,
            timing=result.timing,
            error=result.error,
        )

    def look(self) -> list[NodeStatistics]:
        """The nodes' accounts, for ``bill``; none while they change."""
        try:
            return self.engine.statistics()
        except StepError:
            return []

    def bill(
        self, before: list[NodeStatistics], timings: Sequence[Timing], *, logits: bool = False
    ) -> Bill | None:
        """What answers cost since that look; None where other nodes have gone on with them.
        ``logits``: nothing but the digest asked for logits."""
        after = self.look()
        if not after or not same_nodes(before, after):
            return None
        return make_bill(self.engine.split, before, after, timings, logits_for_digest=logits)

    def predict(self, timings: Sequence[Timing], *, logits: bool = False) -> Prediction | None:
        """What such answers were to be expected to take, None where no profile says."""
        lineup = self.engine.lineup
        predictor = find_predictor(stored_profile(), lineup.options)
        return predict_answers(predictor, self.folder, lineup, timings, logits=logits)


@contextlib.contextmanager
def open_session(
    model: str,
    options: EngineOptions,
    watch: Watch = unwatched,
    tell: Tell | None = None,
    gathering: Gathering | None = None,
) -> Iterator[Session]:
    """Opens the model that the user named and loads it on its nodes. ``tell`` hears of nodes that
    fail and of others that go on, in another thread; without it a failure ends the answers.
    ``gathering``: the cluster whose machines are to be its nodes, in the place of those in
    ``options``; it is waited for until they suffice.

    Errors are those of ``Folder.open``, ``OpeningTexts`` and ``Engine.start``.
    """
    # Workers have the weights; to give the command config and tokenizer will do.
    said: list[str] = []
    here = not options.hosts and gathering is None
    begun = time.perf_counter()
    with (
        Folder.open(resolve_model(model, said.append), weights=here) as folder,
        OpeningTexts(folder) as texts,
    ):
        options = settle_format(folder, options)
        start = time.perf_counter()
        with start_engine(model, folder, options, watch, said, tell, gathering, texts) as engine:
            tokenizer, template = texts.wait()
            parts = {
                "open": start - begun,
                **vars(engine.lineup.start_times),
                "texts": texts.seconds,
            }
            yield Session(
                name=printable(model),
                folder=folder,
                options=options,
                engine=engine,
                tokenizer=tokenizer,
                template=template,
                load_seconds=time.perf_counter() - start,
                start_seconds=parts,
            )
