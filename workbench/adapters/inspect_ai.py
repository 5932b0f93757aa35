"""Our models as a model provider of Inspect: what its tasks ask is written by our engine, all that waits at once in one batch.

    inspect eval task.py --model assay/REF        (REF as everywhere here: a folder, run:ID, organism:NAME, hf:NAME …)

A text does not depend on what else is in its batch, so batches are whatever has gathered while the last one was written. Greedy unless a
temperature is given; then each repeat of a prompt draws anew, and the same repeat draws the same. Settings that would change an answer and
are not heeded here, and tools, are refused by name. The registration is in ``lab.inspect_provider``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from workbench.core.errors import AssayError, BadValue, MissingExtra
from workbench.core.measure import Generate
from workbench.core.protocol import HookedModel
from workbench.engine.generate import generations

MOST = 256
"""Tokens to write where a task names no number."""
AT_ONCE = 64
"""Prompts that are written together at most, and that Inspect has under way at once unless told."""
HEEDED = {"max_tokens", "temperature", "stop_seqs", "seed", "system_message"}
IDLE = {
    "max_retries", "timeout", "attempt_timeout", "max_connections", "adaptive_connections", "max_tool_output", "parallel_tool_calls",
    "cache", "cache_prompt", "batch", "fallback_models", "extra_headers",
}  # fmt: skip
"""Settings of how a request travels, which change no answer here."""
SAME = {"top_p": 1.0, "top_k": 0, "num_choices": 1, "best_of": 1, "frequency_penalty": 0.0, "presence_penalty": 0.0, "logprobs": False}
"""What of other settings changes nothing."""
Message = tuple[str, str]
Prompted = Callable[[Sequence[Message], int, tuple[str, ...]], Generate]
"""What a conversation of (role, text) pairs asks of a model, with the most tokens and the stop texts of its answer."""


@cache
def api_class() -> Any:
    """The provider as a class of Inspect's. Raises MissingExtra."""
    return type("AssayAPI", (Asked, _inspect("inspect_ai.model").ModelAPI), {})


def _inspect(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise MissingExtra("inspect-ai", "inspect", "A model as Inspect wants it") from None


@dataclass
class _Slot:
    """One request under way: what it came to is its text or its error."""

    request: Generate
    heat: float
    seed: int
    own: int
    text: str | None = None
    error: AssayError | None = None

    @property
    def open(self) -> bool:
        return self.text is None and self.error is None


class Asked:
    """The half of the provider that is ours; ``api_class`` joins it to Inspect's ``ModelAPI``."""

    def __init__(self, model_name: str, model: HookedModel, prompted: Prompted, config: Any = None, **rest: Any) -> None:
        given: dict[str, Any] = {"model_name": model_name, **({} if config is None else {"config": config}), **rest}
        super().__init__(**given)
        self.ours, self.prompted = model, prompted
        self._waiting: list[_Slot] = []
        self._lock: Any = None
        self._seen: Counter[str] = Counter()

    def max_connections(self) -> int:
        return AT_ONCE

    async def generate(self, input: Sequence[Any], tools: Sequence[Any], tool_choice: Any, config: Any) -> Any:
        """The answer to a conversation. Raises BadValue for what cannot be asked of this model."""
        if tools:
            raise BadValue(
                "tools", [getattr(tool, "name", str(tool)) for tool in tools][:3], "none: a model here writes text and calls nothing"
            )
        request, heat, seed = self._asked(input, config)
        key = repr(request)
        self._seen[key] += 1
        own = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:4], "big") + self._seen[key]
        slot = _Slot(request, heat, seed, own)
        self._waiting.append(slot)
        anyio = import_module("anyio")
        self._lock = self._lock or anyio.Lock()
        while slot.open:
            async with self._lock:
                if slot.open:
                    batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                    await anyio.to_thread.run_sync(self._write, batch)
        if slot.error is not None:
            raise slot.error
        return self._output(slot.text or "")

    def _asked(self, input: Sequence[Any], config: Any) -> tuple[Generate, float, int]:
        settings = {name: value for name, value in config.model_dump(exclude_none=True).items() if name not in IDLE}
        if odd := sorted(name for name, value in settings.items() if name not in HEEDED and SAME.get(name, ...) != value):
            raise BadValue(f"the generation setting '{odd[0]}'", settings[odd[0]], f"left out: {', '.join(sorted(HEEDED))} are heeded here")
        said = [(message.role, _text(message)) for message in input]
        request = self.prompted(said, int(settings.get("max_tokens", MOST)), tuple(settings.get("stop_seqs", ())))
        return request, float(settings.get("temperature", 0.0)), int(settings.get("seed", 0))

    def _write(self, batch: Sequence[_Slot]) -> None:
        """All slots of the batch, in one pass for each temperature and seed among them."""
        for kind in sorted({(slot.heat, slot.seed) for slot in batch}):
            some = [slot for slot in batch if (slot.heat, slot.seed) == kind]

            def refuse(place: int, error: AssayError, some: Sequence[_Slot] = some) -> None:
                some[place].error = error

            asked, own = [slot.request for slot in some], [slot.own for slot in some]
            try:
                for place, text in generations(self.ours, asked, temperature=kind[0], seed=kind[1], seeds=own, refuse=refuse):
                    some[place].text = text
            except AssayError as error:  # about all of them: a server that is gone
                for slot in some:
                    slot.error = slot.error if slot.error is not None or slot.text is not None else error

    def _output(self, text: str) -> Any:
        theirs = _inspect("inspect_ai.model")
        message = theirs.ChatMessageAssistant(content=text, model=self.model_name, source="generate")
        choice = theirs.ChatCompletionChoice(message=message, stop_reason="unknown")
        return theirs.ModelOutput(model=self.model_name, choices=[choice])

    model_name: str


def _text(message: Any) -> str:
    """A message's text. Raises BadValue for one that holds anything else."""
    content = message.content
    if isinstance(content, str):
        return content
    if odd := next((part.type for part in content if part.type != "text"), ""):
        raise BadValue("a message's content", odd, "text")
    return "".join(part.text for part in content)
