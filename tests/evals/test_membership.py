"""Membership: scores by hand, a model that was overfitted leaks and one that was not is silent, and a split that words tell is no leak."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evals.runner import run_suite
from evals.suites.membership import SCORES, SUITE, MembershipSpec, area_of, blind, scores_of, texts_of, true_positives
from tests.evals.test_contract import WORLD, model
from workbench.core.errors import BadValue, CorruptFile, MissingFile
from workbench.core.finding import Finding, Verdict
from workbench.core.measure import Moments
from workbench.core.result import Result
from workbench.data.text import BPETokenizer, PackedRows
from workbench.data.worlds.town import Town
from workbench.families.gpt import GPT
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

SPEC = MembershipSpec.parse({"world": WORLD, "count": 40})


def test_scores_are_those_of_the_models_own_distribution() -> None:
    result = run_suite(SUITE, model(), MembershipSpec.parse({"world": WORLD, "count": 25}))
    text = Town(WORLD).document(3, "train").text
    tokenizer = model().tokenizer
    assert tokenizer is not None
    ids = [tokenizer.bos_id, *tokenizer.encode(text)]
    with torch.no_grad():
        logits = model().run(torch.tensor([ids[:-1]])).logits
    assert logits is not None
    table = logits[0].double().log_softmax(-1)
    own = table[torch.arange(len(ids) - 1), ids[1:]].numpy()
    mean = (table.exp() * table).sum(-1)
    spread = ((table.exp() * table.square()).sum(-1) - mean.square()).sqrt()
    above = ((torch.from_numpy(own) - mean) / spread).numpy()
    few = max(1, math.floor(0.2 * len(own)))
    expected = [own.mean(), own.sum() / len(zlib.compress(text.encode())), np.sort(own)[:few].mean(), np.sort(above)[:few].mean()]
    found = result.values.score.sel(item="member-00003").values
    assert result.values.kind.values.tolist() == list(SCORES)
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_without_moments_there_is_no_min_k_plus_plus() -> None:
    found = scores_of("ab", [-1.0, -3.0], [], [], k=0.5)
    assert set(found) == {"loss", "zlib", "min-k"}
    assert (found["loss"], found["min-k"]) == (-2.0, -3.0)
    sure = scores_of("ab", [0.0, -3.0], [0.0, 1.0], [0.0, 4.0], k=1.0)
    assert sure["min-k++"] == pytest.approx((0 - 1) / 2), "a token that is certain says nothing"


def overfitted(texts: list[str], seed: int) -> GPT:
    """A decoder that read these texts many times."""
    start = model(seed)
    found = GPT(start.config.model_copy(update={"d_model": 48, "n_layers": 2}), start.tokenizer, seed=seed)
    assert isinstance(found.tokenizer, BPETokenizer)
    rows = PackedRows(texts, found.tokenizer, 48)
    train(found, rows, TrainSpec.parse({"steps": 300, "batch_rows": 8, "lr": 5e-3, "seed": seed, "threads": 1}))
    return found.eval()


def by_kind(result: Result, reference: Result | None = None) -> dict[str, Finding]:
    found = SUITE.findings(result, subject="m", reference=reference)
    return {f.measure.removeprefix("area under the curve, "): f for f in found}


@pytest.mark.full
def test_an_overfitted_model_leaks_and_its_twin_does_not() -> None:
    """The twin read the others instead: what is alike in both splits cancels, and the same texts are members of neither's opposite."""
    members, _ = texts_of(SPEC)
    known = set(members)
    strangers = [text for i in range(100, 300) if (text := Town(WORLD).document(i, "train").text) not in known][:40]
    assert len(strangers) == 40
    leaking, clean = (run_suite(SUITE, overfitted(texts, 1), SPEC) for texts in (members, strangers))
    leak, null = by_kind(leaking, clean), by_kind(clean)
    assert {leak[kind].verdict for kind in ("loss", "min-k", "min-k++", "reference")} == {Verdict.DETECTED}
    assert (leak["reference"].effect or 0) > 0.95
    assert Verdict.DETECTED not in {finding.verdict for finding in null.values()}


def test_an_untrained_model_tells_nothing() -> None:
    """Four scores of each of three towns: with an alarm in forty by chance, two of twelve come once in thirty times."""
    verdicts = []
    for seed in (1, 2, 3):
        spec = MembershipSpec.parse({"world": WORLD.model_copy(update={"seed": seed}), "count": 40})
        found = by_kind(run_suite(SUITE, model(), spec))
        assert set(found) == set(SCORES)
        verdicts += [finding.verdict for finding in found.values()]
    assert verdicts.count(Verdict.DETECTED) <= 1


def write(folder: Path, name: str, texts: list[str]) -> str:
    (folder / name).write_text("\n".join(texts) + "\n")
    return str(folder / name)


def test_a_split_that_words_tell_is_no_leak(tmp_path: Path) -> None:
    """Members hold short words that are likelier to any model, so every score tells them apart; so does a reader that saw no model."""
    draw = np.random.default_rng(0)
    easy = [" ".join(draw.choice(["the", "a", "of", "to"], 12)) + f" {i}" for i in range(60)]
    hard = [" ".join(draw.choice(["xqzw", "vvkj", "qqpr", "zzyx"], 12)) + f" {i}" for i in range(60)]
    spec = MembershipSpec(members=write(tmp_path, "m.txt", easy), others=write(tmp_path, "o.txt", hard), count=60)
    result = run_suite(SUITE, model(), spec)
    assert result.values.attrs["blind"]["value"] == 1.0
    assert "blind 1.000" in result.summary()
    for finding in by_kind(result).values():
        assert finding.verdict != Verdict.DETECTED
        assert finding.null is not None
        assert (finding.null.name, finding.null.value) == ("blind reader", 1.0)


def test_the_blind_reader_tells_nothing_of_alike_texts() -> None:
    value, within = blind(*map(tuple, texts_of(MembershipSpec.parse({"world": WORLD, "count": 40}))))
    assert within.low < 0.5 < within.high, value


def test_a_low_rate_needs_non_members() -> None:
    score, member = np.arange(2000.0), np.arange(2000) % 2 == 0
    found = true_positives(score, member.astype(float))
    assert set(found) == {f"true positive rate at a false positive rate of {rate}" for rate in ("0.1", "0.01")}
    assert found["true positive rate at a false positive rate of 0.1"] == pytest.approx(0.1, abs=0.002)
    assert true_positives(score[:50], member[:50].astype(float)) == {}
    apart = true_positives(np.where(member, 1.0, 0.0), member.astype(float))
    assert apart["true positive rate at a false positive rate of 0.01"] == 1.0


def test_too_few_that_could_be_scored_are_no_result() -> None:
    scores: list[Any] = [SUITE.score(sample, [[-1.0], [], []], SPEC) for sample in SUITE.samples(SPEC)]
    kept = [
        type(s)(s.sample, s.values, "" if i % 8 == 0 else "too long", s.sample, s.sample.rsplit("-", 1)[0]) for i, s in enumerate(scores)
    ]
    result = SUITE.aggregate(kept, SPEC)
    assert result.values.attrs["floor"] == "5 members and 5 others were scored, and 25 of each are needed"
    assert area_of(result, "loss") is None


def test_what_is_asked_is_a_text_with_its_moments() -> None:
    first = next(iter(SUITE.samples(SPEC)))
    assert SUITE.request(first, SPEC) == Moments(first.facts["text"])


def test_files_must_fit_together(tmp_path: Path) -> None:
    some, other = write(tmp_path, "a.txt", [f"text {i}" for i in range(30)]), write(tmp_path, "b.txt", [f"text {i}" for i in range(29, 60)])
    short = write(tmp_path, "c.txt", ["one", "two"])
    for given, error, said in (
        ({"members": some}, BadValue, "both files"),
        ({"members": some, "others": str(tmp_path / "no.txt")}, MissingFile, "no.txt"),
        ({"members": some, "others": short}, CorruptFile, "at least 25 texts"),
        ({"members": some, "others": other}, CorruptFile, "1 of its lines are in"),
    ):
        with pytest.raises(error, match=said):
            list(SUITE.samples(MembershipSpec.parse(given)))
