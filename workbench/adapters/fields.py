"""A published config read field by field, so that nothing in it can be passed over unseen.

Every field that is read is ticked off. What is left must be at the published default or be known to change no number of a forward
pass; anything else is refused by name.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from workbench.core.errors import Incompatible

INERT = (
    "_*", "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache", "id2label", "label2id",
    "num_labels", "*dropout*", "*drop", "*pdrop", "initializer_*", "init_std", "*_token_id", "task_specific_params", "summary_*",
    "gradient_checkpointing", "output_*", "return_dict", "torchscript", "pruned_heads", "chunk_size_feed_forward", "problem_type",
    "finetuning_task", "*layerdrop", "tokenizer_class", "prefix", "max_length", "min_length", "num_beams", "early_stopping",
    "no_repeat_ngram_size", "length_penalty", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "forced_*",
    "suppress_tokens", "begin_suppress_tokens", "pretraining_tp", "attn_implementation", "bad_words_ids", "diversity_penalty",
    "typical_p", "use_bfloat16", "tf_legacy_loss",
)  # fmt: skip
"""Fields that change training, generation settings or bookkeeping, and no number of a forward pass in evaluation mode."""


class Fields:
    """The fields of one published config over their published defaults; ``names`` looks up the names of its tensors, for the few
    things that no field says."""

    def __init__(
        self, given: Mapping[str, Any], defaults: Mapping[str, Any], what: str, names: Callable[[], Collection[str]] = tuple
    ) -> None:
        self.given, self.defaults, self.what, self.names = dict(given), dict(defaults), what, names
        self._read: set[str] = set()
        self._refused: list[str] = []

    def __getitem__(self, name: str) -> Any:
        """A field's value, by default the published one; ticks it off."""
        self._read.add(name)
        return self.given[name] if name in self.given else self.defaults.get(name)

    def own(self, name: str, otherwise: Any) -> Any:
        """A field's value where it is given and not null; the published default may depend on other fields, so the caller says it."""
        self._read.add(name)
        value = self.given.get(name)
        return otherwise if value is None else value

    def need(self, name: str, *allowed: Any) -> Any:
        """A field that must have one of a few values; noted as refused otherwise."""
        value = self[name]
        if value not in allowed:
            self._refused.append(f"{name}={value!r} is not handled (only {', '.join(map(repr, allowed))})")
        return value

    def choose(self, name: str, words: Mapping[str, str]) -> str:
        """Our word for a field's value."""
        value = self[name]
        if value not in words:
            self._refused.append(f"{name}={value!r} is not handled (only {', '.join(map(repr, words))})")
            return next(iter(words.values()))
        return words[value]

    def refuse(self, reason: str) -> None:
        """Note a reason of the caller's own."""
        self._refused.append(reason)

    def done(self, inert: Iterable[str] = ()) -> None:
        """Refuse what is left over. Raises Incompatible with every reason."""
        globs = (*INERT, *inert)
        for name, value in sorted(self.given.items()):
            unread = name not in self._read and not any(fnmatch.fnmatchcase(name, glob) for glob in globs)
            if unread and (name not in self.defaults or value != self.defaults[name]):
                self._refused.append(f"{name}={value!r} is not handled")
        if self._refused:
            raise Incompatible("import", self.what, self._refused)
