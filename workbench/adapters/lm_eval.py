"""Our models as an lm-evaluation-harness ``LM``: its tasks run on our engine, with shared beginnings run once.

    import lm_eval
    from workbench.adapters.lm_eval import harnessed
    lm_eval.simple_evaluate(model=harnessed(model), tasks=["..."])

Encoding is theirs (trailing spaces of a context go to the continuation; the continuation's tokens are what the whole has beyond the
context's), scoring and decoding are ours. Log-likelihoods are certified where the model is (``engine.score.standing``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from workbench.core.errors import BadValue, MissingExtra
from workbench.core.measure import Generate
from workbench.core.protocol import HookedModel
from workbench.engine.generate import generations
from workbench.engine.score import WINDOW, Mode, details
from workbench.engine.tokens import Encoded, context_length, tokenizer_of

MOST = 256
"""Tokens to generate where a task names no number: the harness's own default."""
ASKED = {"until", "max_gen_toks", "max_tokens", "max_new_tokens", "max_completion_tokens", "do_sample", "temperature"}
IDLE = {"top_p": 1.0, "top_k": 0, "num_beams": 1, "repetition_penalty": 1.0}
"""What of other generation settings changes nothing."""
Tokens = tuple[tuple[str, str], list[int], list[int]]


def harnessed(
    model: HookedModel, *, bos: bool = True, cut: bool = False, token_budget: int = 8192, mode: Mode = "certified", seed: int = 0
) -> Any:
    """``model`` as an ``lm_eval.api.model.LM``.

    ``bos``: texts begin with BOS where the tokenizer has one (the harness's ``add_bos_token``). ``cut``: a text longer than the context
    loses its beginning, as in the harness; else it is an error. ``seed`` is that of sampled texts. Raises MissingExtra, and BadValue for a
    model without a tokenizer.
    """
    return _class()(model, tokenizer_of(model), bos, cut, token_budget, mode, seed)


@cache
def _class() -> Callable[..., Any]:
    try:
        base = import_module("lm_eval.api.model").TemplateLM
    except ImportError:
        raise MissingExtra("lm-eval", "harness", "A model as lm-evaluation-harness wants it") from None
    return type("Harnessed", (Harnessed, base), {})


class Harnessed:
    """The half of the ``LM`` that is ours; ``_class`` joins it to the harness's ``TemplateLM``."""

    backend = "causal"

    def __init__(self, model: HookedModel, tokenizer: Any, bos: bool, cut: bool, token_budget: int, mode: Mode, seed: int) -> None:
        super().__init__()
        self.ours, self.tokenizer, self.bos, self.cut = model, tokenizer, bos, cut
        self.budget, self.seed = token_budget, seed
        self.mode: Mode = mode
        self.cut_texts = 0
        """How many texts lost their beginning."""

    @property
    def eot_token_id(self) -> int:
        return _first("an end or a begin token", self.tokenizer.eos_id, self.tokenizer.bos_id)

    @property
    def prefix_token_id(self) -> int:
        return _first("a begin or an end token", self.tokenizer.bos_id, self.tokenizer.eos_id)

    @property
    def max_length(self) -> int:
        return context_length(self.ours) or WINDOW

    @property
    def tokenizer_name(self) -> str:
        return f"assay-{self.tokenizer.digest()[:12]}"

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside its results."""
        return {"model_family": self.ours.family, "model_digest": self.ours.digest(), "scoring": self.mode}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        ids = list(self.tokenizer.encode(string))
        begins = self.bos if add_special_tokens is None else add_special_tokens
        return [self.tokenizer.bos_id, *ids] if begins and self.tokenizer.bos_id is not None else ids

    # --- log-likelihoods ------------------------------------------------------------------------------------

    def _loglikelihood_tokens(self, requests: Sequence[Tokens], disable_tqdm: bool = False, **_: Any) -> list[tuple[float, bool]]:
        encoded = [self._encoded(context, ids) for _, context, ids in requests]
        out: list[tuple[float, bool]] = [(math.nan, False)] * len(requests)
        hook = getattr(self, "cache_hook", None)
        for index, (detail,) in details(self.ours, encoded, moments=False, token_budget=self.budget, mode=self.mode):
            out[index] = (math.fsum(detail.logprobs), detail.greedy)
            if hook is not None and requests[index][0] is not None:
                hook.add_partial("loglikelihood", requests[index][0], out[index])
        return out

    def _encoded(self, context: Sequence[int], ids: Sequence[int]) -> Encoded:
        if not context or not ids:
            raise BadValue("a request's tokens", (list(context), list(ids)), "at least one to read and one to score")
        over = len(context) + len(ids) - 1 - self.max_length
        if over > 0 and (not self.cut or over >= len(context)):
            needed = len(context) + len(ids) - 1
            raise BadValue(
                "a request's length in tokens",
                needed,
                f"at most {self.max_length}, the model's context",
                do="`cut=True` drops its start.",
            )
        self.cut_texts += over > 0
        return Encoded(tuple(context[max(0, over) :]), (tuple(ids),))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Texts of any length in the harness's own windows, which do not overlap."""
        theirs = import_module("lm_eval.utils")
        windows: list[Tokens] = []
        counts: list[int] = []
        for (text,) in (request.args for request in requests):
            ids = self.tok_encode(text, add_special_tokens=False)
            pairs = theirs.get_rolling_token_windows(ids, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1)
            found = [(("", ""), list(context), list(scored)) for context, scored in map(theirs.make_disjoint_window, pairs)]
            windows += found
            counts.append(len(found))
        values = iter([value for value, _ in self._loglikelihood_tokens(windows)])
        return [math.fsum(next(values) for _ in range(count)) for count in counts]

    # --- texts ----------------------------------------------------------------------------------------------

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy, or sampled with a seed of each request's own."""
        by_heat: dict[float, list[int]] = {}
        asked: list[Generate] = []
        for number, (context, settings) in enumerate(request.args for request in requests):
            heat, request = asked_for(context, settings)
            by_heat.setdefault(heat, []).append(number)
            asked.append(request)
        out = [""] * len(requests)
        for heat, numbers in by_heat.items():
            some = [asked[number] for number in numbers]
            found = generations(self.ours, some, temperature=heat, seed=self.seed, seeds=numbers, token_budget=self.budget)
            for place, text in found:
                out[numbers[place]] = text
        return out


def asked_for(context: str, settings: Mapping[str, Any]) -> tuple[float, Generate]:
    """Temperature and request of a task's generation settings. Raises BadValue for a setting that is not heeded here."""
    if odd := sorted(name for name in settings if name not in ASKED and settings[name] != IDLE.get(name, ...)):
        raise BadValue(f"the generation setting '{odd[0]}'", settings[odd[0]], f"one of {', '.join(sorted(ASKED))}")
    until = settings.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(stop for stop in until if stop)
    most = next((settings[name] for name in sorted(ASKED) if name.startswith("max_") and name in settings), MOST)
    heat = float(settings.get("temperature") or 0.0)
    sampled = settings.get("do_sample", heat > 0)
    return (heat or 1.0) if sampled else 0.0, Generate(context, int(most), stops)


def _first(words: str, *ids: int | None) -> int:
    found = [one for one in ids if one is not None]
    if not found:
        raise BadValue("the tokenizer", f"without {words}", "one that has it: an empty context is read as that token")
    return found[0]
