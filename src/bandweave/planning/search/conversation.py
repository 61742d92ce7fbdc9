"""Conversations: several users, turn after turn, with or without keeping what was read. Pure.

A turn adds a prompt and an answer. An engine that keeps the cache of the turn before (a prefix
cache) reads only the new prompt; another reads the whole conversation again. That decides how long
agents and chats wait, more than the speed of decoding does.

All users ask at once: their prompts are read one after another, then the answers are written
together, one token for each in a step. People who pause between turns wait less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.cost import decode_step, prefill
from bandweave.planning.costs.deployment import Workload
from bandweave.planning.search.search import Plan


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """``users`` at once, each with ``turns`` of ``prompt`` and ``answer`` tokens, behind ``prefix``
    tokens that are the same for all of them (a system prompt, a repository). ``reuse``: the engine
    keeps what it has read."""

    users: int = 1
    turns: int = 1
    prompt: int = 1024
    answer: int = 512
    prefix: int = 0
    reuse: bool = False

    @property
    def tokens(self) -> int:
        """Of one user's conversation, at its end."""
        return self.prefix + self.turns * (self.prompt + self.answer)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """``cached``: tokens that are there before; ``read``: tokens that a user's prompt costs.
    ``first_token_s``: of whom is served first, ``last_first_token_s``: last. ``tokens_per_s``: of
    each user, while all write. ``seconds``: until all have their answers."""

    number: int
    cached: int
    read: int
    first_token_s: float
    last_first_token_s: float
    tokens_per_s: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ConversationCost:
    """``kept``: with a prefix cache; ``again``: without."""

    conversation: Conversation
    plan: Plan
    kept: tuple[Turn, ...]
    again: tuple[Turn, ...]

    @property
    def turns(self) -> tuple[Turn, ...]:
        """As asked."""
        return self.kept if self.conversation.reuse else self.again

    @property
    def seconds(self) -> float:
        return sum(turn.seconds for turn in self.turns)


def conversation_cost(plans: Sequence[Plan], conversation: Conversation) -> ConversationCost:
    """On the plan that is through with it first."""
    costs = [
        ConversationCost(
            conversation=conversation,
            plan=plan,
            kept=_turns(plan, conversation, reuse=True),
            again=_turns(plan, conversation, reuse=False),
        )
        for plan in plans
    ]
    return min(costs, key=lambda cost: cost.seconds)


def most_streams(plan: Plan) -> int:
    """How many streams of the question's context the plan's machines hold at once."""
    nodes = capacity(plan.deployment, plan.question.decoding).nodes
    streams = plan.question.streams
    rooms = [
        (node.available_bytes - node.weight_bytes - node.work_bytes) / (node.kv_bytes / streams)
        for node in nodes
        if node.kv_bytes > 0
    ]
    most = int(min(rooms, default=float(1 << 16)))
    while most > 1 and not _holds(plan, most):  # work space grows with the streams
        most -= max(1, most // 64)
    return max(most, 1)


def _holds(plan: Plan, streams: int) -> bool:
    return capacity(plan.deployment, replace(plan.question.decoding, streams=streams)).fits


def _turns(plan: Plan, talk: Conversation, *, reuse: bool) -> tuple[Turn, ...]:
    result = []
    for number in range(1, talk.turns + 1):
        own = (number - 1) * (talk.prompt + talk.answer)
        cached = talk.prefix + own
        if reuse:
            # The prefix is read once for all users, by whoever comes first.
            behind = cached if number > 1 else 0
            first = _read_s(plan, behind, cached + talk.prompt - behind)
            each = first if number > 1 else _read_s(plan, cached, talk.prompt)
            read = cached + talk.prompt - behind
        else:
            first = each = _read_s(plan, 0, cached + talk.prompt)
            read = cached + talk.prompt
        waited = first + (talk.users - 1) * each
        middle = cached + talk.prompt + talk.answer // 2
        work = Workload(context=middle, streams=talk.users, prompt=0)
        period = decode_step(plan.deployment, work).period_s
        result.append(
            Turn(
                number=number,
                cached=cached,
                read=read,
                first_token_s=first,
                last_first_token_s=waited,
                tokens_per_s=1.0 / period,
                seconds=waited + talk.answer * period,
            )
        )
    return tuple(result)


def _read_s(plan: Plan, context: int, prompt: int) -> float:
    return prefill(plan.deployment, Workload(context=context, streams=1, prompt=prompt)).total_s
