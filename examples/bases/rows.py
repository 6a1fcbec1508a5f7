"""What the generators produce: a plain document or a chat.

How a row becomes tokens is left to `tokenizer`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a chat; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Row:
    """Either a document (`text`) or a chat (`messages`, the last one from the assistant)."""

    text: str = ""
    messages: tuple[Message, ...] = ()


def ask(question: str, answer: str, *, system: str = "") -> Row:
    """A chat of one question and one answer, with a system message where one is given."""
    head = (Message("system", system),) if system else ()
    return Row(messages=(*head, Message("user", question), Message("assistant", answer)))
