"""``assay`` among Inspect's model providers: its entry point names this module, which registers and imports the rest once it is asked.

    inspect eval task.py --model assay/run:last
    inspect eval task.py --model assay/path/to/checkpoint -M template=chat.yaml

Without a ``template`` a conversation is one message of the user, which is the prompt as it stands. With one (a YAML file of
``data.chat.ChatTemplate``: what stands before and after each role's text, and a system prompt) it is written in turns. Neither is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from workbench.adapters.inspect_ai import Message, Prompted, api_class
from workbench.core.errors import BadValue, MissingFile
from workbench.core.measure import Generate
from workbench.core.protocol import Tokenizer
from workbench.core.written import fields_in, text_of
from workbench.data.chat import ChatTemplate, Role, prompt_ids
from workbench.data.chat import Message as Turn
from workbench.lab.refs import load
from workbench.lab.silence import silence


@dataclass(frozen=True)
class Turns:
    """A whole conversation as a ``core.measure.Chat``; the text it is asked with is its last."""

    template: ChatTemplate
    turns: tuple[Turn, ...]

    def asking(self, text: str, tokenizer: Tokenizer) -> list[int]:
        return prompt_ids(self.turns, self.template, tokenizer)


def prompted(template: ChatTemplate | None) -> Prompted:
    """How a conversation becomes a request. Raises BadValue (when asked) for one that this cannot be said of."""

    def plain(messages: Sequence[Message], most: int, until: tuple[str, ...]) -> Generate:
        if [role for role, _ in messages] != ["user"]:
            roles = ", ".join(role for role, _ in messages) or "none"
            raise BadValue("the conversation's roles", roles, "one message of the user", do="Give -M template=FILE for conversations.")
        return Generate(messages[0][1], most, until)

    def in_turns(messages: Sequence[Message], most: int, until: tuple[str, ...]) -> Generate:
        assert template is not None
        if odd := next((role for role, _ in messages if role not in get_args(Role)), ""):
            raise BadValue("a message's role", odd, ", ".join(get_args(Role)))
        roles: dict[str, Role] = {role: role for role in get_args(Role)}
        turns = tuple(Turn(roles[role], text) for role, text in messages)
        return Generate(turns[-1].text if turns else "", most, until, Turns(template, turns))

    return plain if template is None else in_turns


def template_of(file: str) -> ChatTemplate:
    """The template of a YAML file. Raises MissingFile, CorruptFile and UsageError."""
    place = Path(file)
    if not place.is_file():
        raise MissingFile(place, "chat template")
    values = fields_in(text_of(place, "a chat template"), place, "a chat template")
    return ChatTemplate.parse(values, what=f"chat template '{place.name}'")


def provider() -> Any:
    """The class that Inspect makes its models of."""
    silence()
    base = api_class()

    class AssayAPI(base):
        def __init__(self, model_name: str, template: str = "", **rest: Any) -> None:
            how = prompted(template_of(template) if template else None)
            super().__init__(model_name=model_name, model=load(model_name), prompted=how, **rest)

    return AssayAPI


def register() -> None:
    """Make the provider known to Inspect, under the name ``assay``."""
    import_module("inspect_ai.model").modelapi(name="assay")(provider)


with suppress(ImportError):  # without Inspect there is nobody to register with
    register()
