"""Conversations as rows for supervised fine-tuning: a template that is part of the spec, and a loss on the answers alone.

    [BOS]  system.before + system prompt + system.after
           user.before + what the user says + user.after
           assistant.before + ANSWER + ASSISTANT.AFTER [EOS]   ...

Only what stands in capitals is predicted. Every piece is turned to ids by itself, in training as for a prompt, so the ids before an answer
are the same in both. Nothing is guessed: a system prompt is there where the spec has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import Tokenizer
from workbench.core.spec import Spec

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Message:
    """What one side says."""

    role: Role
    text: str


Conversation = Sequence[Message]


class Marks(Spec):
    """What stands before and after a role's text."""

    before: str = ""
    after: str = "\n"


class ChatTemplate(Spec):
    """How a conversation is written. ``prompt`` is the system prompt of conversations that bring none ('': none is written)."""

    system: Marks = Marks(before="<|system|>\n")
    user: Marks = Marks(before="<|user|>\n")
    assistant: Marks = Marks(before="<|assistant|>\n")
    prompt: str = ""

    def marks(self, role: Role) -> Marks:
        """A role's marks."""
        return {"system": self.system, "user": self.user, "assistant": self.assistant}[role]

    def asking(self, text: str, tokenizer: Tokenizer) -> list[int]:
        """The ids of a conversation in which the user says ``text``, up to where the assistant begins. Raises BadValue."""
        return prompt_ids([Message("user", text)], self, tokenizer)

    def checked(self, messages: Conversation) -> list[Message]:
        """``messages`` with the system prompt in front, where there is one.

        Raises BadValue where a system message is not the first, where user and assistant do not take turns beginning with the user, and for
        a text that holds a mark of the template: what someone says is no turn of another's.
        """
        whole = list(messages)
        if self.prompt and not (whole and whole[0].role == "system"):
            whole.insert(0, Message("system", self.prompt))
        turns = [message.role for message in whole if message.role != "system"]
        late = any(message.role == "system" for message in whole[1:])
        if late or not turns or any(role != ("user", "assistant")[at % 2] for at, role in enumerate(turns)):
            raise BadValue("the roles of a conversation", [m.role for m in whole], "system (or not), then user and assistant in turn")
        marks = sorted({mark for role in ROLES if (mark := self.marks(role).before.strip())})
        for message in whole:
            if odd := [mark for mark in marks if mark in message.text]:
                raise BadValue(f"a text of the {message.role}", odd[0], "without a mark of the template")
        return whole


def prompt_ids(messages: Conversation, template: ChatTemplate, tokenizer: Tokenizer) -> list[int]:
    """The ids of a conversation that ends with the user, up to where the assistant begins. Raises BadValue."""
    whole = template.checked(messages)
    if whole[-1].role != "user":
        raise BadValue("the last message", whole[-1].role, "the user's, which is to be answered")
    return [*_ids(whole, template, tokenizer)[0], *tokenizer.encode(template.assistant.before)]


class ChatRows:
    """Conversations to train on (a ``RowData`` of ``TokenBatch``), a row each; what the assistant says is predicted, with its end.

    Rows are filled on the right with a token that nothing predicts. Raises BadValue for no conversations, one without an answer, and one
    longer than ``length`` inputs: nothing is cut short.
    """

    def __init__(self, conversations: Sequence[Conversation], template: ChatTemplate, tokenizer: Tokenizer, length: int) -> None:
        if not conversations:
            raise BadValue("the conversations", 0, "at least one")
        self.template, self.length, self._source = template, length, tokenizer.digest()
        self._pad = next((i for i in (tokenizer.pad_id, tokenizer.eos_id) if i is not None), 0)
        self._rows: list[tuple[list[int], list[bool]]] = []
        for number, messages in enumerate(conversations):
            ids, answer = _ids(template.checked(messages), template, tokenizer)
            if not any(answer):
                raise BadValue(f"conversation {number}", "without an answer", "one in which the assistant says something")
            if len(ids) - 1 > length:
                raise BadValue(f"the tokens of conversation {number}", len(ids) - 1, f"at most {length}", do="Nothing is cut short.")
            self._rows.append((ids, answer))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def predicted(self) -> int:
        """How many targets there are in all."""
        return sum(sum(answer) for _, answer in self._rows)

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """The rows ``indices``, as wide as the longest of them."""
        numbers = [int(i) for i in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= len(self):
            raise BadValue("row indices", numbers[:8], f"non-empty and within 0 to {len(self) - 1}")
        chosen = [self._rows[number] for number in numbers]
        width = max(len(ids) for ids, _ in chosen) - 1
        tokens, targets = torch.full((len(chosen), width), self._pad), torch.full((len(chosen), width), IGNORE)
        for at, (ids, answer) in enumerate(chosen):
            tokens[at, : len(ids) - 1] = torch.tensor(ids[:-1])
            targets[at, : len(ids) - 1] = torch.tensor([i if said else IGNORE for i, said in zip(ids[1:], answer[1:], strict=True)])
        return TokenBatch(tokens, targets)

    def digest(self) -> str:
        """sha256 (hex) over the tokenizer, the template and all rows."""
        whole = hashlib.sha256(f"chat {self._source} {self.template.digest()} {self.length}".encode())
        for row in self._rows:
            whole.update(repr(row).encode())
        return whole.hexdigest()


def _ids(whole: Conversation, template: ChatTemplate, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Ids, and which of them the assistant says."""
    ids, answer = ([tokenizer.bos_id], [False]) if tokenizer.bos_id is not None else ([], [])
    for message in whole:
        marks, said = template.marks(message.role), message.role == "assistant"
        parts = [(tokenizer.encode(marks.before), False), (tokenizer.encode(message.text), said), (tokenizer.encode(marks.after), said)]
        if said and tokenizer.eos_id is not None:
            parts.append(([tokenizer.eos_id], True))
        for part, predicted in parts:
            ids, answer = [*ids, *part], [*answer, *[predicted] * len(part)]
    return ids, answer
