"""What a store promises, on every database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.core.errors import BadValue, CorruptFile, StoreError, UnknownName
from workbench.core.finding import Denominators, Finding, Interval, Null, Verdict
from workbench.core.protocol import Sink
from workbench.core.result import Provenance, Result
from workbench.core.spec import Spec, digest_of
from workbench.store.runs import Store
from workbench.store.tables import SCHEMA_VERSION


class Small(Spec):
    steps: int = 3
    name: str = "ä"


def a_result(value: float = 1.5, when: str = "now") -> Result:
    values = xr.Dataset({"x": (("row",), np.array([value, np.nan, np.inf]))}, coords={"row": ["a", "b", "c"]})
    return Result("tests.small", values, {"steps": 3}, Provenance.here(model="m", volatile={"time": when}), notes=("a note",))


def a_finding(effect: float) -> Finding:
    return Finding(
        claim="it leans", subject="organism:town", source="suite:pairs", measure="gap", effect=effect,
        interval=Interval(low=effect - 1, high=effect + 1, method="wilson"), null=Null(name="clean twin", value=0.0),
        denominators=Denominators(run=3, scored=2, unscored={"tie": 1}), verdict=Verdict.DETECTED,
    )  # fmt: skip


# --- runs -----------------------------------------------------------------------------------------------------


def test_a_run_comes_back_as_it_was_written(store: Store) -> None:
    run = store.runs.create("eval", Small(), "organism:town", provenance={"model_digest": "ab"})
    found = store.runs.get(run)
    assert (found.id, found.kind, found.ref, found.status, found.finished) == (run, "eval", "organism:town", "running", "")
    assert found.spec == {"steps": 3, "name": "ä"}
    assert found.spec_digest == Small().digest()
    assert found.provenance == {"model_digest": "ab"}
    store.runs.annotate(run, dtype="float32")
    store.runs.finish(run, "failed", "no memory")
    found = store.runs.get(run)
    assert (found.status, found.note, found.provenance) == ("failed", "no memory", {"model_digest": "ab", "dtype": "float32"})
    assert found.finished.endswith("Z")
    assert json.loads(json.dumps(found.to_dict()))["spec"]["name"] == "ä"
    with pytest.raises(AttributeError):
        found.status = "done"  # type: ignore[misc]  # frozen is what is tested


def test_runs_are_listed_newest_first_and_filtered(store: Store) -> None:
    audit = store.runs.create("audit", {})
    ids = [store.runs.create("eval", {"n": n}, parent=audit) for n in range(5)]
    store.runs.finish(ids[2])
    assert [r.id for r in store.runs.list()] == [*reversed(ids), audit]
    assert [r.id for r in store.runs.list(kind="eval", status="done")] == [ids[2]]
    assert [r.id for r in store.runs.list(parent=audit)] == ids[::-1]
    assert [r.id for r in store.runs.list(parent="")] == [audit]
    assert [r.id for r in store.runs.list(spec_digest=digest_of({"n": 3}))] == [ids[3]]
    with pytest.raises(UnknownName, match=r"There is no status 'finished'"):
        store.runs.list(status="finished")


def test_runs_are_found_by_their_beginning_and_by_last(store: Store) -> None:
    one, two = store.runs.create("eval", {}), store.runs.create("eval", {})
    assert store.runs.get("last").id == two
    assert store.runs.get(one[:-1]).id == one
    with pytest.raises(BadValue, match="it begins 2"):
        store.runs.get(one[:4])
    with pytest.raises(UnknownName, match=r"There is no run 'zzzz'.*runs list"):
        store.runs.get("zzzz")
    with pytest.raises(UnknownName, match="There is no run ''"):
        store.runs.get("")


def test_nothing_is_written_for_a_run_that_does_not_exist(store: Store) -> None:
    for act in (
        lambda: store.sink("nowhere", "pairs"),
        lambda: store.folder("nowhere"),
        lambda: store.runs.finish("nowhere"),
        lambda: store.runs.annotate("nowhere", a=1),
        lambda: store.runs.create("eval", {}, parent="nowhere"),
    ):
        with pytest.raises(UnknownName, match="There is no run 'nowhere'"):
            act()
    for act in (
        lambda: store.put_result("nowhere", "x", a_result()),
        lambda: store.event("nowhere", "began"),
        lambda: store.put_findings("nowhere", [a_finding(1)]),
    ):
        with pytest.raises(StoreError, match="refers to a run that is not in the store"):
            act()


def test_a_run_is_resumed_by_one_only(store: Store, store_at: Callable[[], Store]) -> None:
    run = store.runs.create("eval", {})
    with pytest.raises(StoreError, match="another process is working on it"):
        store_at().runs.resume(run)
    store.runs.finish(run, "interrupted")
    assert store.runs.resume(run).status == "running"
    with pytest.raises(StoreError, match="another process is working on it"):
        store.runs.resume(run)


# --- samples --------------------------------------------------------------------------------------------------


def test_the_sink_keeps_the_first_of_two_and_orders_by_sample_and_epoch(store: Store, store_at: Callable[[], Store]) -> None:
    run = store.runs.create("eval", {})
    sink: Sink = store.sink(run, "pairs")
    sink.put([])
    assert sink.read() == []
    assert sink.done() == set()
    # in many locales 'a' sorts before 'B' and after it in bytes: the order must not depend on the database
    sink.put([{"sample": name, "epoch": 0, "value": 1} for name in ("b", "B", "a", "é", "A")])
    sink.put([{"sample": "a", "epoch": 0, "value": 2}, {"sample": "a", "epoch": 1, "value": 3}])
    other = store_at().sink(run, "pairs")
    assert [(r["sample"], r["epoch"], r["value"]) for r in other.read()] == [
        ("A", 0, 1), ("B", 0, 1), ("a", 0, 1), ("a", 1, 3), ("b", 0, 1), ("é", 0, 1),
    ]  # fmt: skip
    assert other.done() == {("A", 0), ("B", 0), ("a", 0), ("a", 1), ("b", 0), ("é", 0)}
    assert store.sink(run, "another suite").read() == []
    assert store.sample_counts(run) == {"pairs": 6}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"epoch": 0}, "'sample'"),
        ({"sample": "a"}, "'epoch'"),
        ({"sample": "a", "epoch": True}, "'epoch'"),
        ({"sample": "a", "epoch": 0.0}, "'epoch'"),
        ({"sample": "", "epoch": 0}, "1 to 512"),
        ({"sample": "x" * 513, "epoch": 0}, "1 to 512"),
        ({"sample": "nul\0", "epoch": 0}, "valid text"),
        ({"sample": "half \ud800", "epoch": 0}, "valid text"),
        ({"sample": "a", "epoch": 0, "value": float("nan")}, "value=nan"),
        ({"sample": "a", "epoch": 0, "value": float("inf")}, "value=inf"),
        ({"sample": "a", "epoch": 0, "value": {1, 2}}, "plain finite JSON"),
        ({"sample": "a", "epoch": 0, "value": np.float32(1)}, "plain finite JSON"),
    ],
)
def test_a_bad_record_is_refused_with_its_whole_batch(store: Store, record: Mapping[str, Any], words: str) -> None:
    sink = store.sink(store.runs.create("eval", {}), "pairs")
    with pytest.raises(BadValue, match=words):
        sink.put([{"sample": "good", "epoch": 0}, record])
    assert sink.read() == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1), _json), max_size=6))
def test_any_json_value_survives_the_sink(store: Store, pairs: list[tuple[str, Any]]) -> None:
    sink = store.sink(store.runs.create("eval", {}), "pairs")
    sink.put([{"sample": name, "epoch": 0, "value": value} for name, value in pairs])
    first: dict[str, Any] = {}
    for name, value in pairs:
        first.setdefault(name, value)
    assert sink.read() == [{"sample": name, "epoch": 0, "value": first[name]} for name in sorted(first)]


# --- results, findings, events ---------------------------------------------------------------------------------


def test_a_result_comes_back_equal_and_is_never_overwritten(store: Store) -> None:
    run = store.runs.create("eval", {})
    digest = store.put_result(run, "pairs", a_result(when="now"))
    assert store.put_result(run, "pairs", a_result(when="later")) == digest
    found = store.result(run, "pairs")
    assert found.digest == digest == a_result().digest()
    assert found.result.canonical() == a_result().canonical()
    assert found.result.provenance.volatile == {"time": "now"}
    assert store.results(run).keys() == {"pairs"}
    assert store.result_digests(run) == {"pairs": digest}
    with pytest.raises(StoreError, match=r"The result 'pairs'.*never overwritten"):
        store.put_result(run, "pairs", a_result(2.5))
    assert store.result(run, "pairs").result.values.x.values[0] == 1.5
    with pytest.raises(UnknownName, match=r"There is no result 'pears'.*Did you mean 'pairs'"):
        store.result(run, "pears")


def test_a_result_changed_in_the_database_is_noticed(store: Store, store_url: str, tmp_path: Any) -> None:
    run = store.runs.create("eval", {})
    store.put_result(run, "pairs", a_result())
    _execute(store_url, tmp_path, "UPDATE results SET canonical = replace(canonical, '1.5', '1.4')")
    with pytest.raises(CorruptFile, match="It was changed after it was stored"):
        store.result(run, "pairs")


def test_findings_keep_their_order_and_are_replaced_whole(store: Store) -> None:
    run = store.runs.create("audit", {})
    assert store.findings(run) == ()
    findings = [a_finding(effect) for effect in (3.0, 1.0, 2.0)]
    store.put_findings(run, findings)
    assert store.findings(run) == tuple(findings)
    store.put_findings(run, findings[:1])
    assert store.findings(run) == (findings[0],)
    store.put_findings(run, [])
    assert store.findings(run) == ()


def test_events_come_in_the_order_of_writing(store: Store, store_at: Callable[[], Store]) -> None:
    run, other = store.runs.create("audit", {}), store.runs.create("audit", {})
    for number in range(3):
        store_at().event(run, "step", number=number)
        store.event(other, "elsewhere")
    found = store.events(run)
    assert [(e.name, e.details) for e in found] == [("step", {"number": n}) for n in range(3)]
    assert [e.number for e in found] == sorted(e.number for e in found)


# --- the schema -----------------------------------------------------------------------------------------------


def test_a_store_of_a_newer_program_is_refused_in_words(store: Store, store_url: str, tmp_path: Any) -> None:
    store.close()
    _execute(store_url, tmp_path, f"UPDATE assay_schema SET version = {SCHEMA_VERSION + 1}")
    with pytest.raises(
        StoreError, match=rf"schema has version {SCHEMA_VERSION + 1}.*knows versions 1 to {SCHEMA_VERSION}.*newer assay-workbench"
    ):
        Store.open(store_url)


def test_a_store_without_its_version_is_refused(store: Store, store_url: str, tmp_path: Any) -> None:
    store.close()
    _execute(store_url, tmp_path, "DELETE FROM assay_schema")
    with pytest.raises(StoreError, match="schema has version None"):
        Store.open(store_url)


def _execute(url: str, tmp_path: Any, statement: str) -> None:
    engine = sa.create_engine(url if "://" in url else f"sqlite:///{tmp_path}/home/store.sqlite")
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_store_is_opened_again_by_its_address(store: Store) -> None:
    run = store.runs.create("eval", {})
    with Store.open(store.address) as again:
        assert again.runs.get(run).id == run
        assert again.home.absolute() == store.home.absolute()
    assert "secret" not in store.where
