"""Runs a suite on a model: answers are committed as they come, and a killed run ends in the same bytes as an unbroken one.

Samples are cut into chunks in the order the suite gives them, and a chunk is always computed whole: what else is in a batch
then never depends on where a run was interrupted. The result is aggregated from what the sink holds, in sample order. Every
record names the model, suite, spec and data it belongs to, and a sink that holds another's records is refused: answers of
one model are never reported for another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evals.sampling import sampled
from workbench.core.errors import AssayError, BadValue, EmptySelection, Incompatible, StoreError
from workbench.core.finding import Denominators
from workbench.core.measure import Answering, Generate, Loglikelihood, Moments, Request, Rolling, Sample, Sampled, Score, Suite, needs_of
from workbench.core.protocol import HookedModel, Progress, Sink, silent
from workbench.core.result import Provenance, Result
from workbench.core.spec import Spec, digest_of
from workbench.engine.generate import generations
from workbench.engine.score import WINDOW, certify, details, loglikelihoods, standing, token_logprobs
from workbench.engine.tokens import Encoded, context_length, encode_pair, encode_request, tokenizer_of

FORMAT = 1
TOKEN_BUDGET = 8192
CHECKED = 16
"""Samples that are scored a second time at most."""


class MemorySink:
    """A ``core.protocol.Sink`` in memory, for use from Python. Records take the way through JSON a store gives them."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, int], str] = {}

    def done(self) -> set[tuple[str, int]]:
        return set(self._records)

    def put(self, records: Sequence[Mapping[str, Any]]) -> None:
        for record in records:
            self._records.setdefault((record["sample"], record["epoch"]), json.dumps(dict(record), allow_nan=False))

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(self._records[where]) for where in sorted(self._records)]


def run_suite(
    suite: Suite,
    model: HookedModel,
    spec: Spec | None = None,
    sink: Sink | None = None,
    *,
    progress: Progress = silent,
    batch: int = 64,
    check: float = 0.0,
    spread: Spread | None = None,
) -> Result:
    """The suite's result on ``model``; answers already in ``sink`` are not asked again.

    ``batch`` samples are computed and committed together: a kill loses at most those. Use one value for one sink; with
    another, numbers of a model that is not certified (``engine.score.standing``) may differ in the last bits, since other
    samples share a pass. ``check`` is the share of samples (at most ``CHECKED``) whose log-likelihoods are asked again,
    naively and alone; how far they were off stands in the provenance, beside the times. ``spread`` asks the chunks elsewhere. Raises
    Incompatible, EmptySelection (a suite without samples), StoreError (a sink with another run's records).
    """
    spec = suite.spec() if spec is None else spec
    sink = MemorySink() if sink is None else sink
    if batch < 1:
        raise BadValue("batch", batch, "at least 1")
    if reasons := needs_of(suite, spec).objections(model):
        raise Incompatible(suite.name, f"this {model.family} model", reasons)
    samples = _distinct(suite, suite.samples(spec))
    identity = _Identity.of(suite, model, spec, samples)
    _check_owner(sink, identity.label(), suite.name)
    done = sink.done()
    step = min(batch, getattr(suite, "most_at_once", batch))
    chunks = [samples[first : first + step] for first in range(0, len(samples), step)]
    waiting = [chunk for chunk in chunks if not all((sample.id, 0) in done for sample in chunk)]
    if finished := len(samples) - sum(map(len, waiting)):
        progress(finished, len(samples), suite.name)
    here = (answers(suite, model, spec, chunk) for chunk in waiting)
    for asked in here if spread is None else spread(suite, spec, waiting):
        sink.put([_record(answer, identity.label()) for answer in asked])
        finished += len(asked)
        progress(finished, len(samples), suite.name)
    found = _finish(suite, spec, samples, sink.read(), identity)
    if not (said := _scoring(suite, model, spec, samples, check)):
        return found
    return replace(found, provenance=replace(found.provenance, volatile={**found.provenance.volatile, "scoring": said}))


def _scoring(suite: Suite, model: HookedModel, spec: Spec, samples: Sequence[Sample], share: float) -> str:
    """The certificate of a few samples spread evenly over all, in words; '' where the suite asks for no log-likelihoods or none is due."""
    if not share:
        return ""
    count = min(CHECKED, math.ceil(share * len(samples)))
    asked = [suite.request(samples[k * len(samples) // count], spec) for k in range(count)]
    parts = [part for request in asked for part in (request if isinstance(request, tuple) else (request,))]
    requests = [part for part in parts if isinstance(part, Loglikelihood)]
    if not requests:
        return ""
    if isinstance(model, Answering):
        return f"not certified: {standing(model)}"
    fit = [request for request in requests if _fits(model, request)]
    return str(certify(model, fit, share=1.0, most_each=3, token_budget=TOKEN_BUDGET)) if fit else ""


def _fits(model: HookedModel, request: Loglikelihood) -> bool:
    try:
        encode_request(model, request)
    except AssayError:
        return False
    return True


@dataclass(frozen=True)
class Answer:
    """A sample's score and how many continuations had to be encoded apart from their context."""

    score: Score
    apart: int = 0


Spread = Callable[[Suite, Spec, Sequence[Sequence[Sample]]], Iterator[Sequence[Answer]]]
"""Asks chunks of samples on models elsewhere that are this one, and gives each chunk's answers, whole, as they come."""


@dataclass(frozen=True)
class _Identity:
    suite: str
    spec_digest: str
    data_digest: str
    model_digest: str
    model: str
    dtype: str

    @classmethod
    def of(cls, suite: Suite, model: HookedModel, spec: Spec, samples: Sequence[Sample]) -> _Identity:
        data = digest_of([[s.id, dict(s.facts), s.cluster, s.group] for s in samples])
        dtype = str(getattr(model, "dtype", "float32")).removeprefix("torch.")
        return cls(suite.name, spec.digest(), data, model.digest(), getattr(model, "name", model.family), dtype)

    def label(self) -> str:
        return digest_of([FORMAT, self.suite, self.spec_digest, self.data_digest, self.model_digest, self.dtype])


def _distinct(suite: Suite, samples: Iterable[Sample]) -> list[Sample]:
    out = list(samples)
    if not out:
        raise EmptySelection("sample", "(all)", [], where=f"suite '{suite.name}' with this spec")
    seen: set[str] = set()
    for sample in out:
        if sample.id in seen:
            raise BadValue("a sample's id", sample.id, "used once in a suite")
        seen.add(sample.id)
    return out


def _check_owner(sink: Sink, label: str, suite: str) -> None:
    for record in sink.read():
        if record.get("of") != label:
            raise StoreError(
                f"Suite '{suite}' was to go on in this sink", "it holds answers of another model, spec, data or suite",
                do="Start a new run; answers are never carried from one model to another.",
            )  # fmt: skip


# --- asking -------------------------------------------------------------------------------------------------


@dataclass
class _Asked:
    """The requests of a chunk, flat, with what came back."""

    requests: list[Request] = field(default_factory=list)
    responses: dict[int, Any] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    apart: dict[int, int] = field(default_factory=dict)

    def of_type(self, kind: type) -> list[int]:
        return [index for index, request in enumerate(self.requests) if isinstance(request, kind)]


def answers(suite: Suite, model: HookedModel, spec: Spec, chunk: Sequence[Sample]) -> list[Answer]:
    """Each sample of the chunk asked and scored. What the engine refuses is unscored with its reason."""
    asked = _Asked()
    places: list[list[int]] = []
    single: list[bool] = []
    for sample in chunk:
        request = suite.request(sample, spec)
        single.append(not isinstance(request, tuple))
        parts = request if isinstance(request, tuple) else (request,)
        places.append(list(range(len(asked.requests), len(asked.requests) + len(parts))))
        asked.requests.extend(parts)
    if isinstance(model, Answering):
        _ask_in_text(model, asked)
    else:
        _ask_loglikelihoods(model, asked)
        _ask_rolling(model, asked)
        _ask_moments(model, asked)
    _ask_generations(model, asked)
    _ask_sampled(model, asked)
    return [_scored(suite, spec, sample, asked, where, alone) for sample, where, alone in zip(chunk, places, single, strict=True)]


def _reason(error: AssayError) -> str:
    """A reason that is the same for all samples with the same trouble, so that reasons can be counted."""
    return f"{error.field} must be {error.allowed}" if isinstance(error, BadValue) else str(error).split(". ")[0]


def _ask_in_text(model: HookedModel, asked: _Asked) -> None:
    """Log-likelihoods of a model that answers itself: it reads text, and texts of any length in one piece. It shows no moments."""
    where = [*asked.of_type(Loglikelihood), *asked.of_type(Rolling), *asked.of_type(Moments)]
    requests: list[Loglikelihood] = []
    for request in (asked.requests[index] for index in where):
        assert isinstance(request, Loglikelihood | Rolling | Moments)
        requests.append(request if isinstance(request, Loglikelihood) else Loglikelihood(request.context, (request.text,)))

    def refuse(place: int, error: AssayError) -> None:
        asked.refused[where[place]] = _reason(error)

    for place, answer in loglikelihoods(model, requests, refuse=refuse) if requests else ():
        whole = isinstance(asked.requests[where[place]], Moments)
        asked.responses[where[place]] = [answer[0], [], []] if whole else answer


def _ask_loglikelihoods(model: HookedModel, asked: _Asked) -> None:
    ready, where = [], []
    for index in asked.of_type(Loglikelihood):
        request = asked.requests[index]
        assert isinstance(request, Loglikelihood)
        try:
            ready.append(encode_request(model, request))
        except AssayError as error:
            asked.refused[index] = _reason(error)
            continue
        where.append(index)
        asked.apart[index] = len(ready[-1].apart)
    for place, answer in loglikelihoods(model, ready, token_budget=TOKEN_BUDGET):
        asked.responses[where[place]] = answer


def _ask_moments(model: HookedModel, asked: _Asked) -> None:
    """What is known of each token of a text; a text that does not fit is refused."""
    where = asked.of_type(Moments)
    requests: list[Loglikelihood] = []
    for request in (asked.requests[index] for index in where):
        assert isinstance(request, Moments)
        requests.append(Loglikelihood(request.context, (request.text,)))

    def refuse(place: int, error: AssayError) -> None:
        asked.refused[where[place]] = _reason(error)

    for place, (found,) in details(model, requests, token_budget=TOKEN_BUDGET, refuse=refuse) if requests else ():
        asked.responses[where[place]] = [found.logprobs, found.entropies, found.variances]


def _ask_rolling(model: HookedModel, asked: _Asked) -> None:
    short: list[tuple[int, Encoded]] = []
    limit = context_length(model) or WINDOW
    for index in asked.of_type(Rolling):
        request = asked.requests[index]
        assert isinstance(request, Rolling)
        try:
            encoded = encode_pair(tokenizer_of(model), request.context, [request.text])
            if encoded.longest() <= limit:  # one window holds it: many such texts share a pass
                short.append((index, encoded))
            else:
                ids = encoded.context + encoded.continuations[0]
                asked.responses[index] = [token_logprobs(model, ids, lead=len(encoded.context), token_budget=TOKEN_BUDGET)]
        except AssayError as error:
            asked.refused[index] = _reason(error)
            continue
        asked.apart[index] = len(encoded.apart)
    for place, answer in loglikelihoods(model, [encoded for _, encoded in short], token_budget=TOKEN_BUDGET):
        asked.responses[short[place][0]] = answer


def _ask_generations(model: HookedModel, asked: _Asked) -> None:
    where = asked.of_type(Generate)
    requests = [r for r in asked.requests if isinstance(r, Generate)]

    def refuse(place: int, error: AssayError) -> None:
        asked.refused[where[place]] = _reason(error)

    for place, text in generations(model, requests, token_budget=TOKEN_BUDGET, refuse=refuse):
        asked.responses[where[place]] = text


def _ask_sampled(model: HookedModel, asked: _Asked) -> None:
    for index in asked.of_type(Sampled):
        request = asked.requests[index]
        assert isinstance(request, Sampled)
        try:
            asked.responses[index] = sampled(model, request)
        except AssayError as error:
            asked.refused[index] = _reason(error)


def _scored(suite: Suite, spec: Spec, sample: Sample, asked: _Asked, where: Sequence[int], alone: bool) -> Answer:
    apart = sum(asked.apart.get(index, 0) for index in where)
    refused = [asked.refused[index] for index in where if index in asked.refused]
    if refused:
        return Answer(Score(sample.id, unscored=refused[0], cluster=sample.cluster, group=sample.group), apart)
    found = [asked.responses[index] for index in where]
    score = suite.score(sample, found[0] if alone else tuple(found), spec)
    bad = sorted(name for name, value in score.values.items() if not _finite(value))
    if bad:
        score = Score(sample.id, unscored=f"not finite: {', '.join(bad)}")
    return Answer(replace(score, sample=sample.id, cluster=sample.cluster, group=sample.group), apart)


def _finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_finite(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(_finite(v) for v in value)
    return not isinstance(value, float) or math.isfinite(value)


def _record(answer: Answer, label: str) -> dict[str, Any]:
    score = answer.score
    return {
        "sample": score.sample, "epoch": 0, "of": label, "values": dict(score.values), "unscored": score.unscored,
        "cluster": score.cluster, "group": score.group, "apart": answer.apart,
    }  # fmt: skip


# --- the result ---------------------------------------------------------------------------------------------


def _finish(suite: Suite, spec: Spec, samples: Sequence[Sample], records: Sequence[Mapping[str, Any]], identity: _Identity) -> Result:
    by_sample = {record["sample"]: record for record in records}
    if missing := [sample.id for sample in samples if sample.id not in by_sample]:
        raise StoreError(f"Suite '{suite.name}' has run", f"the sink lost {len(missing)} of {len(samples)} answers, such as '{missing[0]}'")
    scores = [score_of(by_sample[sample.id]) for sample in samples]
    result = suite.aggregate(scores, spec)
    apart = sum(int(record.get("apart", 0)) for record in by_sample.values())
    notes = (f"{apart} continuations were encoded apart from their context, since a token would straddle the boundary",) if apart else ()
    provenance = Provenance.here(
        model=identity.model, model_digest=identity.model_digest, data=suite.name, data_digest=identity.data_digest,
        seed=getattr(spec, "seed", None), dtype=identity.dtype,
    )  # fmt: skip
    return replace(result, kind=suite.name, spec=spec.model_dump(mode="json"), provenance=provenance, notes=(*result.notes, *notes))


def score_of(record: Mapping[str, Any]) -> Score:
    """The score a committed record holds."""
    return Score(record["sample"], record["values"], record["unscored"], record["cluster"], record["group"])


def denominators(scores: Sequence[Score], *, excluded: int = 0) -> Denominators:
    """How many samples were run, scored and unscored, by reason."""
    reasons: dict[str, int] = {}
    for score in scores:
        if score.unscored:
            reasons[score.unscored] = reasons.get(score.unscored, 0) + 1
    return Denominators(run=len(scores), scored=len(scores) - sum(reasons.values()), unscored=reasons, excluded=excluded)
