"""The evidence of runs side by side and of a training over its checkpoints: derived from the samples again, and whoever lies is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lab.toys import answers, played, stored
from tests.reports.evidence import entries_of
from workbench.core.errors import AssayError, BadValue, MissingData, MissingFile
from workbench.core.measure import Generate, Loglikelihood, Rolling
from workbench.core.result import Provenance
from workbench.core.spec import digest_of
from workbench.lab import trend_report
from workbench.lab.audit import Audit, write_pages
from workbench.lab.circumstances import CIRCUMSTANCES, circumstances
from workbench.lab.compare import kept, request_digest
from workbench.lab.comparison_report import compare_runs
from workbench.lab.evidence import gather, write_bundle
from workbench.lab.trend_report import Checkpoint, Moment
from workbench.lab.verifying import verify
from workbench.reports.evidence import keys, statement
from workbench.reports.evidence.bundle import Evidence, bundle
from workbench.reports.evidence.container import pack, unpack
from workbench.reports.evidence.plans import TrendPlan
from workbench.reports.evidence.samples import Row
from workbench.reports.evidence.verify import Verification, check_signature, examine
from workbench.reports.render import html
from workbench.store.runs import Store

CHECKS = {"container", "entries", "form", "journal", "agreement", "signature", "results", "subjects", "findings", "report"}
OFTEN = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def signer(home: Path) -> keys.PrivateKey:
    keys.trust(keys.new("own", home / "keys").fingerprint, "us", home / "keys")
    return keys.load("own", home / "keys")


@pytest.fixture(autouse=True)
def toys(home: Path, signer: keys.PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_KEYS", str(home / "keys"))
    played(monkeypatch)


@pytest.fixture(scope="module")
def store(home: Path) -> Iterator[Store]:
    with Store.open(home / "runs") as opened:
        yield opened


def compared(store: Store) -> Audit:
    """Four runs: two asked alike, one asked other questions under some of the same names, one under other names."""
    runs = [
        stored(store, answers(0)), stored(store, answers(1, 0.5), unscored=(3,)), stored(store, answers(2), others=10),
        stored(store, answers(3), named="t"),
    ]  # fmt: skip
    return compare_runs(runs, store=store, date="2026-01-02")


def trended(store: Store) -> Audit:
    """Three checkpoints, as ``trend_of`` asks them, without a training."""
    training = store.runs.create("train", {}, "recipe:toy")
    asked = [stored(store, answers(seed, seed / 4)) for seed in range(3)]
    moments = []
    for step, run in zip((10, 200, 3000), asked, strict=True):
        words = Checkpoint(
            part=f"step-{step}", ref=f"run:{training}, step {step:,}", model_digest="a" * 64, run=run, step=step, of="recipe:toy",
            suites=("toy",),
        )  # fmt: skip
        moments.append(Moment(words, {"toy": store.result(run, "toy").result}))
    spec = {"training": training, "suites": {"toy": {}}, "level": 0.95, "asked": asked}
    here = Provenance.here()
    made = trend_report.compose(
        TrendPlan.parse(spec), moments, lambda one, suite: kept(store, one.run, suite), date="2026-01-02", here=here
    )
    run = store.runs.create("trend", spec, f"run:{training}")
    store.put_findings(run, made.all_findings())
    found = write_pages(store, run, made, {CIRCUMSTANCES: circumstances([one.checkpoint for one in moments], here)})
    store.runs.finish(run)
    return found


MADE: dict[str, Callable[[Store], Audit]] = {"comparison": compared, "trend": trended}
_GATHERED: dict[str, Evidence] = {}


def evidence_of(kind: str, store: Store) -> Evidence:
    if kind not in _GATHERED:
        _GATHERED[kind] = gather(MADE[kind](store).run, store)
    return _GATHERED[kind]


def told(evidence: Evidence, signer: keys.PrivateKey, place: Path) -> Verification:
    place.write_bytes(bundle(evidence, signer))
    return verify(place)


def broken(found: Verification) -> dict[str, list[str]]:
    return {check.name: [str(fault) for fault in check.faults] for check in found.checks if check.state == "broken"}


@pytest.mark.parametrize("kind", MADE)
def test_its_bundle_has_one_form_and_is_derived_again_whole(kind: str, store: Store, tmp_path: Path) -> None:
    run = MADE[kind](store).run
    made = [write_bundle(run, tmp_path / name, key="own", store=store) for name in ("a.zip", "b.zip")]
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert made[0].samples == 40 * {"comparison": 4, "trend": 3}[kind]
    found = verify(tmp_path / "a.zip")
    assert {one.name: one.state for one in found.checks} == dict.fromkeys(CHECKS, "holds"), broken(found)
    assert (found.exit_code, found.signer) == (0, keys.load("own", keys.folder()).public().fingerprint)
    with pytest.raises(BadValue, match="Nothing is written over"):
        write_bundle(run, tmp_path / "a.zip", store=store)
    (store.folder(run) / CIRCUMSTANCES).unlink()
    with pytest.raises(MissingFile, match="made by an older version; run it again to bundle it"):
        write_bundle(run, tmp_path / "c.zip", store=store)


def test_what_was_asked_is_told_by_digest_only_where_it_was_not_the_same(store: Store) -> None:
    compared, trend = (entries_of(bundle(evidence_of(kind, store))) for kind in ("comparison", "trend"))
    told = {name for name in compared if name.startswith("asked/")}
    assert told == {f"asked/toy.{letter}.json" for letter in "ABCD"}
    assert not any(name.startswith("asked/") for name in trend)
    assert json.loads(compared["asked/toy.A.json"])[0] == request_digest(Generate("0"))
    section = next(one for one in evidence_of("comparison", store).report.sections if one.anchor == "suite-toy")
    assert "C against A: 30 pairs of 40 samples, 10 asked differently in the two runs." in section.text


def test_a_comparison_that_lacked_data_is_not_bundled_once_they_are_here(store: Store, tmp_path: Path) -> None:
    runs = [stored(store, answers(0)), stored(store, answers(1)), stored(store, answers(2), others=10)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.lab.compare.requests", lambda *_: (_ for _ in ()).throw(MissingData("toys", [])))
        made = compare_runs(runs, store=store, date="2026-01-02")
    assert [one.what for one in made.report.left_out] == ["toy, C against A"]
    with pytest.raises(AssayError, match=rf"Compare them again \(`workbench report {' '.join(runs)}`\)"):
        write_bundle(made.run, tmp_path / "x.zip", store=store)
    assert not (tmp_path / "x.zip").exists()
    write_bundle(compare_runs(runs, store=store, date="2026-01-02").run, tmp_path / "x.zip", store=store)


def test_requests_have_equal_digests_only_where_they_are_equal() -> None:
    asked = [
        Generate("a"), Generate("b"), Generate("a", most=8), Rolling("a"), Loglikelihood("a", ("b",)), Loglikelihood("a", ("b", "")),
        (Generate("a"),), (Generate("a"), Generate("b")), (Generate("b"), Generate("a")), (),
    ]  # fmt: skip
    assert len({request_digest(one) for one in asked}) == len(asked)
    assert request_digest(Generate("a", most=16)) == request_digest(Generate("a"))


@pytest.mark.full
@pytest.mark.parametrize("kind", MADE)
def test_a_signer_who_changes_any_sample_of_any_run_is_found_out_by_the_numbers(
    kind: str, store: Store, signer: keys.PrivateKey, tmp_path: Path
) -> None:
    """Everything is written, chained and signed anew by a trusted key; only the arithmetic tells."""
    whole = evidence_of(kind, store)

    @OFTEN
    @given(st.data())
    def lied(data: st.DataObject) -> None:
        label = data.draw(st.sampled_from(sorted(whole.samples)))
        rows = list(whole.samples[label])
        place = data.draw(st.sampled_from([n for n, row in enumerate(rows) if not row.record["unscored"]]))
        value = data.draw(st.sampled_from(["score", "right"]))
        was = rows[place].record["values"]
        now = {**was, value: was[value] + 0.01 if value == "score" else not was[value]}
        rows[place] = Row({**rows[place].record, "values": now}, rows[place].facts)
        found = broken(told(replace(whole, samples={**whole.samples, label: rows}), signer, tmp_path / "x.zip"))
        if value == "score":
            assert f"results/{label}.json: its samples give another result" in found["results"][0]
        elif label != "toy.D":  # its samples make no pair; what is true or false of them still moves a mean
            assert set(found) == {"report"}, "no finding of the toy rests on it, and every difference of the report does"

    lied()


@pytest.mark.parametrize("kind", MADE)
def test_swapped_samples_runs_and_words_are_named(kind: str, store: Store, signer: keys.PrivateKey, tmp_path: Path) -> None:
    whole, place = evidence_of(kind, store), tmp_path / "x.zip"
    first, second = sorted(whole.samples)[:2]
    swapped = {**whole.samples, first: whole.samples[second], second: whole.samples[first]}
    assert "its samples give another result" in broken(told(replace(whole, samples=swapped), signer, place))["results"][0]
    both = {**whole.results, first: whole.results[second], second: whole.results[first]}
    found = broken(told(replace(whole, samples=swapped, results=both), signer, place))
    assert "report" in found, "two runs that change places change every difference"
    rows = list(whole.samples[first])
    strange = {**whole.samples, first: [Row({**rows[0].record, "of": "e" * 64}, rows[0].facts), *rows[1:]]}
    assert "an answer of another model, spec or data" in broken(told(replace(whole, samples=strange), signer, place))["results"][0]
    subjects = json.loads(whole.circumstances)
    subjects["subjects"][0]["model_digest"] = "b" * 64
    lied = replace(whole, circumstances=digest_free(subjects), models={**whole.models, subjects["subjects"][0]["ref"]: "b" * 64})
    assert f"results/{first}.json: it is of another model" in broken(told(lied, signer, place))["subjects"][0]
    praised = whole.report.model_copy(update={"summary": ("All is well.",)})
    found = broken(told(replace(whole, report=praised, page=html.render(praised)), signer, place))
    assert list(found) == ["report"]
    assert "summary" in found["report"][0]


def digest_free(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_a_lie_about_what_was_asked_breaks_the_pairs(store: Store, signer: keys.PrivateKey, tmp_path: Path) -> None:
    whole = evidence_of("comparison", store)
    lied = {**whole.asked, "toy.C": whole.asked["toy.A"]}
    assert "report" in broken(told(replace(whole, asked=lied), signer, tmp_path / "x.zip"))
    left = {label: one for label, one in whole.asked.items() if label != "toy.C"}
    found = broken(told(replace(whole, asked=left), signer, tmp_path / "x.zip"))
    assert found["subjects"] == ["asked/toy.C.json: it is missing, though the runs were not asked the same"]
    short = {**whole.asked, "toy.C": whole.asked["toy.C"][1:]}
    assert (
        "asked/toy.C.json: it has not one entry for each sample"
        in broken(told(replace(whole, asked=short), signer, tmp_path / "x.zip"))["agreement"]
    )
    more = {**evidence_of("trend", store).asked, "toy.step-10": [digest_of("x")] * 40}
    found = broken(told(replace(evidence_of("trend", store), asked=more), signer, tmp_path / "x.zip"))
    assert found["subjects"] == ["asked/toy.step-10.json: nothing reads it"]


def looked_at(data: bytes) -> Verification:
    """What the bytes alone tell, and the signature."""
    content, checks = examine(data)
    entries = content.entries if content is not None else unpack(data)[0]
    signed, who = check_signature(entries, None, keys.trusted(keys.folder()))
    return Verification((*checks, signed), who)


@pytest.mark.parametrize("kind", MADE)
def test_one_changed_byte_and_every_missing_entry_is_named(kind: str, store: Store, signer: keys.PrivateKey) -> None:
    data = bundle(evidence_of(kind, store), signer)
    entries = entries_of(data)
    assert looked_at(data).exit_code == 0

    @OFTEN
    @given(st.integers(0, len(data) - 1), st.integers(1, 255))
    def flipped(at: int, other: int) -> None:
        found = looked_at(data[:at] + bytes([data[at] ^ other]) + data[at + 1 :])
        assert found.exit_code == 1
        for content in entries.values():
            start = data.index(content)
            if start <= at < start + len(content):  # two entries may say the same
                names = [name for name, same in entries.items() if same == content]
                assert any(name in str(fault) for fault in found.faults for name in names), names

    flipped()
    for name in entries:
        found = looked_at(pack({other: content for other, content in entries.items() if other != name}))
        assert found.exit_code == (2 if name == statement.ENVELOPE else 1), "without its envelope it is an unsigned bundle"
        assert name == statement.ENVELOPE or any(name in str(fault) for fault in found.faults)


def test_evidence_of_another_shape_never_ends_the_program(store: Store, signer: keys.PrivateKey, tmp_path: Path) -> None:
    whole, place = evidence_of("comparison", store), tmp_path / "x.zip"
    for kind, words in (("trend", "plan.json"), ("train", "it is of a run of kind 'train'"), ([], "plan.json"), (None, "plan.json")):
        found = told(replace(whole, run={**whole.run, "kind": kind}), signer, place)
        assert found.exit_code == 1
        assert any(words in str(fault) for fault in found.faults), (kind, [str(f) for f in found.faults])
    plan: Any = whole.plan
    other = plan.model_copy(update={"runs": (*plan.runs[:-1], "another")})
    found = broken(told(replace(whole, plan=other), signer, place))
    assert found["subjects"] == ["plan.json: it is of other runs than the circumstances tell of"]
    with pytest.raises(AssayError, match="holds no report"):
        write_bundle(stored(store, answers(0)), tmp_path / "y.zip", store=store)
