"""Turns of a conversation, from protocols whose messages come in smaller parts.

Chat templates know the system at the start alone, and many refuse two turns of one role in a row.
So what the system says later is the user's, and neighbours of one role are one turn.
"""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]

PARAGRAPH = "\n\n"


class Turns:
    """``messages``: the turns so far, as ``Conversation`` has them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._called: dict[str, str] = {}  # names of tools by the ids of their calls

    def system(self, text: str) -> None:
        early = not self.messages or self.messages[-1]["role"] == "system"
        if text:
            self._say("system" if early else "user", text)

    def user(self, text: str) -> None:
        self._say("user", text)

    def assistant(self, text: str = "", *, between: str = "") -> None:
        """``between`` stands before the text where the turn has some already."""
        message = self._assistants()
        before = message["content"]
        message["content"] = f"{before}{between}{text}" if before and text else before + text

    def thought(self, text: str) -> None:
        message = self._assistants()
        if text:
            message["reasoning_content"] = message.get("reasoning_content", "") + text

    def call(self, id: str, name: str, arguments: Any) -> None:
        self._called[id] = name
        function = {"name": name, "arguments": arguments}
        self._assistants().setdefault("tool_calls", []).append(
            {"id": id, "type": "function", "function": function}
        )

    def called(self, id: str) -> bool:
        """Whether there has been such a call."""
        return id in self._called

    def result(self, id: str, text: str) -> None:
        """What came of a call that there has been."""
        self.messages.append(
            {"role": "tool", "content": text, "tool_call_id": id, "name": self._called[id]}
        )

    def _assistants(self) -> Message:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": ""})
        return self.messages[-1]

    def _say(self, role: str, text: str) -> None:
        if not self.messages or self.messages[-1]["role"] != role:
            self.messages.append({"role": role, "content": text})
        elif text:
            last = self.messages[-1]
            last["content"] = f"{last['content']}{PARAGRAPH}{text}" if last["content"] else text
