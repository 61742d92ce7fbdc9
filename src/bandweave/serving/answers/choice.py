"""Choice: one answer's tokens to its events. Knows no engine and no clock."""

from __future__ import annotations

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import Result
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import End, Event, Reason, TokenInfo
from bandweave.serving.answers.marks import Marks
from bandweave.serving.answers.splitter import Splitter
from bandweave.text.tokenizer import Tokenizer


class Choice:
    """Fed one answer's tokens as they come, and its result."""

    def __init__(self, index: int, ask: Ask, tokenizer: Tokenizer) -> None:
        self._index, self._tokenizer = index, tokenizer
        prompt = ask.tokens if ask.goes_on else ()
        marks = Marks.of(ask.syntax, tokenizer)
        self._stream = tokenizer.stream(ask.params.stop, prompt=prompt, marks=marks.by_token)
        self._splitter = Splitter(index, ask.syntax, marks)
        self._ends = () if ask.ignores_end else tokenizer.eos_token_ids
        self._tokens: list[int] = []
        self._over = False

    @property
    def over(self) -> bool:
        """Whether a stop string or the last call has ended the answer: what comes behind is
        nobody's."""
        return self._over

    def push(self, token: int, logprobs: TokenLogprobs | None) -> list[Event]:
        """The next token, unless the answer is over."""
        if self._over:
            return []
        self._tokens.append(token)
        info = None
        if token not in self._ends:
            info = TokenInfo(token, self._tokenizer.text_bytes(token), logprobs)
        events = self._splitter.push(self._stream.push(token), info)
        self._over = self._stream.finished or self._splitter.over
        return events

    def end(self, result: Result) -> list[Event]:
        """The answer's last events, and its ``End``."""
        events = self._splitter.flush(self._stream.flush())
        reason: Reason = "length"
        if self._over or self._stream.finished or result.reason == "stop":
            reason = "tool_calls" if self._splitter.calls else "stop"
        elif result.reason in ("cancelled", "error"):
            reason = "cancelled" if result.reason == "cancelled" else "error"
        end = End(
            choice=self._index,
            reason=reason,
            tokens=tuple(self._tokens),
            timing=result.timing,
            stop=self._stream.stopped_by,
            error=result.error,
            thought_tokens=self._splitter.thought_tokens,
            cached_tokens=result.timing.reused_tokens,
            prompt_logprobs=result.prompt_logprobs,
            embedding=result.embedding,
        )
        return [*events, end]
