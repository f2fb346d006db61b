"""The messages of a conversation, in OpenAI's form."""

from __future__ import annotations

from typing import Literal

from serve.http.openai_fields import Strict, Text


class TextPart(Strict):
    type: Literal["text"]
    text: Text


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None
    """Of who speaks, for chat templates that tell it."""

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)

    @property
    def for_template(self) -> dict[str, str]:
        """Chat templates know the developer's role by its older name."""
        message = {"role": "system" if self.role == "developer" else self.role, "content": self.text}
        return message if self.name is None else message | {"name": self.name}
