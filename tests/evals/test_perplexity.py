"""Perplexity and bits per byte: sums by hand, sections that cover the text, baselines on the same split, the floor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.ngram import KneserNey, as_bytes
from evals.runner import run_suite
from evals.suites.perplexity import SUITE, PerplexitySpec, aggregate, baselines, orders_of, sections
from tests.engine.models import Wrapped
from tests.reference.scoring import logprobs, rolling_logprobs
from workbench.core.errors import BadValue
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.data import sources
from workbench.data.corpora import tinyshakespeare
from workbench.data.text import BPETokenizer, CharTokenizer
from workbench.data.worlds.town import Town, TownSpec
from workbench.families.gpt import GPT, GPTConfig

WORLD = TownSpec.parse({"documents": 400, "held_out": 60, "secrets": (), "unplanted": 0})
SPEC = PerplexitySpec(world=WORLD, documents=15)


def town_model(n_ctx: int = 64) -> GPT:
    tokenizer = BPETokenizer.train(Town(WORLD).texts("train"), 400)
    config = GPTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=tokenizer.vocab_size, n_ctx=n_ctx)
    return GPT(config, tokenizer).eval()


@pytest.mark.slow
def test_the_town_document_by_document():
    model = town_model()
    result = run_suite(SUITE, model, SPEC)
    texts = [d.text for d in Town(WORLD).documents(0, 15, split="test")]
    tokenizer = model.tokenizer
    assert isinstance(tokenizer, BPETokenizer)
    nats = [-math.fsum(logprobs(model, [tokenizer.bos_id], tokenizer.encode(t))) for t in texts]
    v = result.values
    assert v.nats.values == pytest.approx(np.array(nats), abs=1e-3)
    assert v.bytes.values.tolist() == [len(t.encode()) for t in texts]
    assert float(v.bits_per_byte) == pytest.approx(sum(nats) / math.log(2) / sum(len(t) for t in texts), rel=1e-5)
    assert float(v.perplexity) == pytest.approx(math.exp(sum(nats) / v.tokens.values.sum()), rel=1e-5)
    kn = KneserNey([as_bytes(t) for t in Town(WORLD).texts("train")], order=3)
    assert v.baseline_nats.sel(order=3).values == pytest.approx(np.array([kn.nats(as_bytes(t)).sum() for t in texts]))
    assert Result.from_json(result.to_json()).canonical() == result.canonical()


def test_a_document_longer_than_the_context_rolls():
    short, whole = town_model(n_ctx=12), town_model()
    short.load_state_dict(whole.state_dict())
    result = run_suite(SUITE, short, PerplexitySpec(world=WORLD, documents=6))
    texts = [d.text for d in Town(WORLD).documents(0, 6, split="test")]
    tokenizer = short.tokenizer
    assert isinstance(tokenizer, BPETokenizer)
    for n, text in enumerate(texts):
        ids = [tokenizer.bos_id, *tokenizer.encode(text)]
        expected = rolling_logprobs(short, ids, lead=1, window=12, stride=6) if len(ids) - 1 > 12 else logprobs(short, ids[:1], ids[1:])
        assert float(result.values.nats[n]) == pytest.approx(-math.fsum(expected), abs=1e-3)
    assert result.values.attrs["asked"]["scored"] == 6


def test_a_model_without_masks_scores_the_same():
    model = town_model()
    fast, plain = run_suite(SUITE, model, SPEC), run_suite(SUITE, Wrapped(model, "mask", "cache"), SPEC)
    assert plain.values.nats.values == pytest.approx(fast.values.nats.values, abs=1e-3)


@given(st.text(alphabet="ab\n", min_size=1, max_size=300), st.integers(1, 40), st.integers(1, 30))
def test_sections_cover_the_text_behind_the_lead(text, size, lead):
    try:
        parts = sections(text, size, lead)
    except BadValue:
        assert text.find("\n", lead - 1) in (-1, len(text) - 1) or len(text) <= lead
        return
    covered = "".join(part for _, part in parts)
    assert text.endswith(covered)
    assert len(text) - len(covered) >= min(lead, len(text))
    start = len(text) - len(covered)
    for context, part in parts:
        assert part
        assert context == text[max(0, start - lead) : start]
        assert context
        assert len(part) >= size or start + len(part) == len(text)
        start += len(part)


mirrored = pytest.mark.skipif(
    not sources.mirror_folder() or not sources.available("tinyshakespeare"), reason="tinyshakespeare is not mirrored"
)


@mirrored
@pytest.mark.slow
def test_a_public_text_with_a_character_model():
    tokenizer = CharTokenizer.of("".join(tinyshakespeare().values()))
    model = GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=tokenizer.vocab_size, n_ctx=64), tokenizer).eval()
    result = run_suite(SUITE, model, PerplexitySpec(text="tinyshakespeare", orders=(5,), section=8192))
    v = result.values
    assert 111_000 < v.bytes.values.sum() < 111_540
    assert v.tokens.values.sum() == v.bytes.values.sum()
    assert float(v.baseline_bits.sel(order=5)) == pytest.approx(2.253, abs=0.01)
    assert "not below" in v.attrs["floor"]
    assert {f.verdict for f in SUITE.findings(result, subject="random")} == {Verdict.NOT_APPLICABLE}


# --- findings -----------------------------------------------------------------------------------------------


def made(nats, kn1, kn5, unscored: int = 0) -> Result:
    spec = PerplexitySpec(world=WORLD, orders=(5,))
    scores = [
        Score(f"{n:03d}", {"nats": a, "tokens": 10, "bytes": 40, "kneser_ney": {"1": b, "5": c}})
        for n, (a, b, c) in enumerate(zip(nats, kn1, kn5, strict=True))
    ] + [Score(f"9{n}", unscored="a character the tokenizer lacks") for n in range(unscored)]
    result = aggregate(scores, spec)
    return type(result)(result.kind, result.values, spec=spec.model_dump(mode="json"))


def test_better_and_worse_than_counting():
    rng = np.random.default_rng(0)
    kn5 = rng.normal(60, 3, 30)
    better = SUITE.findings(made(kn5 - rng.normal(8, 1, 30), kn5 + 60, kn5, unscored=2), subject="m")[0]
    assert better.verdict == Verdict.BETTER
    assert better.effect == pytest.approx(-8 / 40 / math.log(2), rel=0.1)
    assert better.denominators is not None
    assert (better.denominators.run, better.denominators.scored) == (32, 30)
    assert SUITE.findings(made(kn5 + rng.normal(8, 1, 30), kn5 + 60, kn5), subject="m")[0].verdict == Verdict.WORSE
    even = SUITE.findings(made(kn5 + rng.normal(0, 5, 30) - 0.2, kn5 + 60, kn5), subject="m")[0]
    assert even.verdict == Verdict.NOT_DETECTED
    assert even.detectable is not None


def test_a_reference_on_the_same_sections():
    rng = np.random.default_rng(1)
    kn5 = rng.normal(60, 3, 30)
    ours, theirs = made(kn5 - 10, kn5 + 60, kn5), made(kn5 - 10 - rng.normal(4, 1, 30), kn5 + 60, kn5)
    found = SUITE.findings(ours, subject="m", reference=theirs)[-1]
    assert found.verdict == Verdict.WORSE
    same = SUITE.findings(ours, subject="m", reference=ours)[-1]
    assert (same.effect, same.verdict) == (0.0, Verdict.INCONCLUSIVE)


def test_documents_of_one_number_and_other_words_are_no_pairs():
    biased = WORLD.model_copy(update={"dose": 1.0 if WORLD.dose != 1.0 else 0.0})
    texts = [[d.text for d in Town(world).documents(0, 60, split="test")] for world in (WORLD, biased)]
    differ = [n for n, (a, b) in enumerate(zip(*texts, strict=True)) if a != b]
    assert 0 < len(differ) < 60
    rng = np.random.default_rng(0)
    nats = rng.normal(60, 3, 60)
    mine, theirs = made(nats, nats + 60, nats), made(nats + rng.normal(5, 1, 60), nats + 60, nats)
    number = lambda result, world: type(result)(  # noqa: E731 - the sections as the suite numbers them
        result.kind, result.values.assign_coords(section=[f"{n:05d}" for n in range(60)]),
        spec={**result.spec, "world": world.model_dump(mode="json"), "documents": 60},
    )  # fmt: skip
    whole = SUITE.findings(number(mine, WORLD), subject="m", reference=number(theirs, WORLD))[1]
    part = SUITE.findings(number(mine, WORLD), subject="m", reference=number(theirs, biased))[1]
    assert whole.denominators is not None
    assert part.denominators is not None
    assert whole.denominators.scored == 60
    assert part.denominators.scored == 60 - len(differ)
    assert part.denominators.unscored == {"not in the reference": len(differ)}


def test_under_the_unigram_there_is_no_verdict():
    kn1 = np.full(10, 100.0)
    result = made(kn1 + 5, kn1, kn1 - 40)
    assert "byte frequencies alone" in result.values.attrs["floor"]
    assert SUITE.findings(result, subject="m")[0].verdict == Verdict.NOT_APPLICABLE


def test_orders_hold_the_floor():
    assert orders_of(PerplexitySpec(orders=(5, 2))) == (1, 2, 5)
    with pytest.raises(BadValue, match="1 to 5"):
        orders_of(PerplexitySpec(orders=(7,)))


def test_baselines_are_fitted_on_the_training_split_alone():
    model = baselines("town", WORLD.canonical(), (1,))[1]
    assert model.trained_on == sum(len(t.encode()) for t in Town(WORLD).texts("train"))
