"""A real bundle: the same bytes again, derived again without the model, and a signer who lies is found out by the numbers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from tests.lab.audited import home_with_audit
from tests.lab.trained import home_with_model
from tests.reports.evidence import entries_of
from workbench.core.errors import AssayError, BadValue, CorruptFile, MissingFile
from workbench.lab import rederive as rederiving
from workbench.lab import verifying
from workbench.lab.circumstances import CIRCUMSTANCES
from workbench.lab.evidence import gather, write_bundle
from workbench.lab.rederive import differences
from workbench.lab.verifying import verify
from workbench.reports.evidence import keys
from workbench.reports.evidence.bundle import Evidence, bundle
from workbench.reports.evidence.samples import Row
from workbench.reports.evidence.verify import Verification
from workbench.store.runs import Store


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    home, run = home_with_audit()
    with Store.open(home) as store:
        return gather(run, store)


@pytest.fixture(autouse=True)
def signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> keys.PrivateKey:
    """A key in a folder of its own, trusted."""
    monkeypatch.setenv("WORKBENCH_KEYS", str(tmp_path / "keys"))
    keys.trust(keys.new("own", keys.folder()).fingerprint, "us", keys.folder())
    return keys.load("own", keys.folder())


def told(evidence: Evidence, signer: keys.PrivateKey, place: Path, **facts: Any) -> Verification:
    """What is found of this evidence, signed by a trusted key."""
    place.write_bytes(bundle(evidence, signer))
    return verify(place, **facts)


def broken(found: Verification) -> dict[str, list[str]]:
    return {check.name: [str(fault) for fault in check.faults] for check in found.checks if check.state == "broken"}


@pytest.mark.full
def test_the_bundle_of_an_audit_holds_everything_and_twice_the_same_bytes(tmp_path: Path) -> None:
    home, run = home_with_audit()
    with Store.open(home) as store:
        made = [write_bundle(run, tmp_path / name, key="own", store=store) for name in ("a.zip", "b.zip")]
        with pytest.raises(BadValue, match="Nothing is written over"):
            write_bundle(run, tmp_path / "a.zip", store=store)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert made[0].samples == 8 + 72
    found = verify(tmp_path / "a.zip")
    assert [(one.name, one.state) for one in found.checks if one.state != "holds"] == []
    assert {one.name for one in found.checks} == {
        "container", "entries", "form", "journal", "agreement", "signature", "results", "spans", "findings", "report",
    }  # fmt: skip
    assert found.exit_code == 0
    said = json.loads(entries_of((tmp_path / "a.zip").read_bytes())["report.json"])["report"]["sections"]
    assert {"plan", "subgroups", "internals-occupation-pronoun"} <= {one["anchor"] for one in said}, "what a plan declares is derived too"


@pytest.mark.full
def test_a_signer_who_changes_a_sample_is_found_out_by_the_numbers(evidence: Evidence, signer: keys.PrivateKey, tmp_path: Path) -> None:
    """Everything is written, chained and signed anew by a trusted key; only the arithmetic tells."""
    label = next(label for label in evidence.samples if label.startswith("occupation-pronoun"))
    rows = list(evidence.samples[label])
    changed = {**rows[0].record, "values": {**rows[0].record["values"], "p_she": 0.999}}
    lied = replace(evidence, samples={**evidence.samples, label: [Row(changed, rows[0].facts), *rows[1:]]})
    found = broken(told(lied, signer, tmp_path / "x.zip"))
    assert list(found) == ["results"]
    assert f"results/{label}.json: its samples give another result: variables." in found["results"][0]
    left = replace(evidence, samples={**evidence.samples, label: rows[1:]})
    assert "its samples give another result" in broken(told(left, signer, tmp_path / "x.zip"))["results"][0]
    strange = replace(evidence, samples={**evidence.samples, label: [Row({**rows[0].record, "of": "e" * 64}, rows[0].facts), *rows[1:]]})
    assert "an answer of another model, spec or data" in broken(told(strange, signer, tmp_path / "x.zip"))["results"][0]


@pytest.mark.full
def test_a_signer_who_changes_a_number_of_the_verdict_table_is_found_out(
    evidence: Evidence, signer: keys.PrivateKey, tmp_path: Path
) -> None:
    number = next(n for n, one in enumerate(evidence.findings) if one.interval is not None and one.effect is not None)
    said = evidence.findings[number]
    assert said.effect is not None
    lie = said.model_copy(update={"effect": said.effect * 1.001 + 0.001})
    sections = [
        s.model_copy(update={"findings": tuple(lie if f.digest() == said.digest() else f for f in s.findings)})
        for s in evidence.report.sections
    ]
    report = evidence.report.model_copy(update={"sections": tuple(sections)})
    findings = tuple(lie if one.digest() == said.digest() else one for one in evidence.findings)
    page = rederiving.html.render(report)
    found = broken(told(replace(evidence, findings=findings, report=report, page=page), signer, tmp_path / "x.zip"))
    assert set(found) == {"findings", "report"}
    assert found["findings"] == [f"finding {number + 1} ({said.source}: {said.measure}): its evidence gives another: effect is "
                                 f"{lie.effect!r}, derived is {said.effect!r}"]  # fmt: skip


@pytest.mark.full
def test_a_signer_who_names_another_part_is_found_out(evidence: Evidence, signer: keys.PrivateKey, tmp_path: Path) -> None:
    label = "internals-occupation-pronoun.audited"
    located = evidence.results[label]
    values = located.values.assign(holm=located.values.holm * 0 + 0.001, chosen=~located.values.chosen)
    lied = replace(evidence, results={**evidence.results, label: replace(located, values=values)})
    found = broken(told(lied, signer, tmp_path / "x.zip"))["results"]
    assert f"results/{label}.json: its items give another test: holm[" in found[0]
    assert found[1].endswith("its repair has a part that does not carry the failure")


@pytest.mark.full
def test_evidence_of_another_shape_is_named_and_never_ends_the_program(evidence: Evidence, signer: keys.PrivateKey, tmp_path: Path) -> None:
    label = "internals-occupation-pronoun.audited"
    odd = replace(evidence.results[label], values=xr.Dataset())
    found = broken(told(replace(evidence, results={**evidence.results, label: odd}), signer, tmp_path / "x.zip"))
    assert "nothing can be derived from what is there" in found["results"][0]
    stranger = replace(evidence, results={**evidence.results, "trigger.nobody": evidence.results["trigger.audited"]})
    found = broken(told(stranger, signer, tmp_path / "x.zip"))
    assert found["results"] == ["results/trigger.nobody.json: its samples are missing"]
    assert "nothing can be derived" in found["findings"][0]


@pytest.mark.full
def test_words_and_page_are_held_to_the_evidence_too(evidence: Evidence, signer: keys.PrivateKey, tmp_path: Path) -> None:
    praised = evidence.report.model_copy(update={"summary": ("All is well.",)})
    found = broken(told(replace(evidence, report=praised, page=rederiving.html.render(praised)), signer, tmp_path / "x.zip"))
    assert list(found) == ["report"]
    assert "summary" in found["report"][0]
    found = broken(told(replace(evidence, page=evidence.page.replace("inconclusive", "equivalent")), signer, tmp_path / "x.zip"))
    assert found == {"report": ["report.html: it is not the page of report.json"]}


@pytest.mark.full
def test_what_other_code_wrote_is_held_to_its_numbers_and_said_to_be_unchecked_in_its_words(
    evidence: Evidence, signer: keys.PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = rederiving.environment
    monkeypatch.setattr(rederiving, "environment", lambda origin: {**here(origin), "source": "0" * 64})
    found = told(evidence, signer, tmp_path / "x.zip")
    assert [(one.name, one.state) for one in found.checks if one.state != "holds"] == [("report", "not checked")]
    assert found.exit_code == 2


@pytest.mark.full
def test_with_the_model_samples_are_asked_again(evidence: Evidence, signer: keys.PrivateKey, tmp_path: Path) -> None:
    home, _ = home_with_audit()
    model = f"run:{home_with_model()[1]}"
    with Store.open(home) as store:
        found = told(evidence, signer, tmp_path / "x.zip", model=model, count=5, seed=1, store=store)
        assert found.exit_code == 0
        assert "10 samples of the audited model" in found.checks[-1].words
        assert found.remarks == ("the samples asked again were drawn with --seed 1",)
        label = next(label for label in evidence.samples if label.startswith("occupation-pronoun"))
        rows = [
            Row({**row.record, "values": {**row.record["values"], "mass": row.record["values"]["mass"] + 0.01}}, row.facts)
            for row in evidence.samples[label]
        ]
        lied = broken(
            told(replace(evidence, samples={**evidence.samples, label: rows}), signer, tmp_path / "x.zip", model=model, store=store)
        )
        assert any(f"sample {label}/" in words and "asked again it is worth something else" in words for words in lied["samples again"])
        other = told(evidence, signer, tmp_path / "x.zip", model="family:gpt", store=store)
        assert "it is none of those audited" in broken(other)["samples again"][0]


@pytest.mark.full
def test_an_audit_without_its_circumstances_or_that_is_none_is_not_bundled(tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(home_with_audit()[0], home)
    run = home_with_audit()[1]
    with Store.open(home) as store:
        with pytest.raises(AssayError, match="holds no report"):
            write_bundle(home_with_model()[1], tmp_path / "x.zip", store=store)
        (store.folder(run) / CIRCUMSTANCES).write_text("[]")
        with pytest.raises(CorruptFile, match="note of the circumstances"):
            write_bundle(run, tmp_path / "x.zip", store=store)
        (store.folder(run) / CIRCUMSTANCES).unlink()
        with pytest.raises(MissingFile, match="run it again to bundle it"):
            write_bundle(run, tmp_path / "x.zip", store=store)
    assert not (tmp_path / "x.zip").exists()
    with pytest.raises(MissingFile, match="evidence bundle"):
        verify(tmp_path / "x.zip")
    (tmp_path / "x.zip").write_bytes(b"nothing")
    assert verify(tmp_path / "x.zip").exit_code == 1
    assert verifying.COUNT == 20


def test_numbers_are_equal_within_rounding_and_texts_within_their_last_place() -> None:
    a = {"x": [1.0, 2, None, True], "s": "dose 0.020 (planted 0.8), p 1e-05", "n": {}}
    assert list(differences(a, {"x": [1.0 + 1e-12, 2.0, None, True], "s": "dose 0.021 (planted 0.8), p 2e-05", "n": {}}, "")) == []
    for other, words in (
        ({**a, "x": [1.0 + 1e-7, 2, None, True]}, "x[0] is 1.0, derived is 1.0000001"),
        ({**a, "x": [1.0, 2, None, 1]}, "x[3] is True, derived is 1"),
        ({**a, "x": [1.0, 2, None]}, "x has 4 entries, derived are 3"),
        ({**a, "s": "dose 0.022 (planted 0.8), p 1e-05"}, "s is 'dose 0.020"),
        ({**a, "s": "dosis 0.020 (planted 0.8), p 1e-05"}, "s is 'dose 0.020"),
        ({"x": a["x"], "s": a["s"]}, ".n is only in the bundle"),
    ):
        assert next(differences(a, other, "")).startswith(words)
