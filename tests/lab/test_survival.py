"""What ends an evaluation from outside: a disk that is full, a server that is gone. What was answered is kept, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tests.adapters.test_endpoint import Server, closed, model, said, server
from tests.engine.models import lettered
from tests.evals.own_tasks import write
from workbench.core.errors import StoreError, Unanswered
from workbench.lab.run import evaluate
from workbench.store.runs import Store

assert callable(server)  # the fixture, named so that pytest finds it here

CHOICES = """
task: letters
data: rows.jsonl
doc_to_text: "{{who}}"
doc_to_choice: [ab, cd, ef]
doc_to_target: 0
target_delimiter: ""
"""
WRITTEN = """
task: letters
data: rows.jsonl
output_type: generate_until
doc_to_text: "{{who}}"
doc_to_target: "fine"
"""
LETTERS = [{"who": "abcdefgh"[k % 8] + "ijklmnop"[k % 7] + "qrst"[k % 4]} for k in range(48)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    with Store.open() as opened:
        yield opened


@contextmanager
def no_more_pages() -> Iterator[None]:
    """Every connection finds its database as large as it may be, which SQLite reports as it does a full disk."""

    def limit(connection: Any, _: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limit)


def counted(done: list[int], then: Callable[[int], None] = lambda n: None) -> Callable[[int, int, str], None]:
    def hear(n: int, _total: int, _words: str = "") -> None:
        done.append(n)
        then(n)

    return hear


def test_a_full_disk_ends_an_evaluation_with_a_sentence_and_it_goes_on(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path, CHOICES, LETTERS)
    network = lettered(n_ctx=32)
    whole = evaluate("own-task", network, store=store, batch=4, file=file)
    done: list[int] = []
    full = no_more_pages()
    with pytest.raises(StoreError, match=r"disk is full.*Make room on that disk"):
        evaluate(
            "own-task", network, store=store, batch=4, file=file, progress=counted(done, lambda n: full.__enter__() if n == 12 else None)
        )
    full.__exit__(None, None, None)
    (broken, _) = store.runs.list(kind="eval")
    kept = store.sample_counts(broken.id)["own-task"]
    assert 12 <= kept < len(LETTERS)
    assert broken.status == "failed"
    resumed = evaluate("own-task", network, store=store, batch=4, file=file, resume="auto", progress=counted(again := []))
    assert resumed.run == broken.id
    assert again[0] == kept, "what was committed is not asked again"
    assert resumed.results["own-task"].canonical() == whole.results["own-task"].canonical()


def test_a_server_that_vanishes_ends_an_evaluation_and_what_it_answered_is_kept(server: Server, store: Store, tmp_path: Path) -> None:
    file = write(tmp_path, WRITTEN, LETTERS[:10])
    served: Any = model(server, at_once=1, retries=1)
    whole = evaluate("own-task", served, store=store, batch=2, file=file)
    assert whole.results["own-task"].values.above.values.tolist() == [[1.0] * 10]
    server.script = [said("fine"), said("bad"), said("fine"), *[closed] * 9]
    with pytest.raises(Unanswered, match="no usable reply in 2 of 2 tries"):
        evaluate("own-task", served, store=store, batch=2, file=file)
    (broken, _) = store.runs.list(kind="eval")
    assert broken.status == "failed"
    assert "no usable reply" in broken.note
    assert store.sample_counts(broken.id) == {"own-task": 2}
    server.script.clear()
    asked = len(server.asked)
    resumed = evaluate("own-task", served, store=store, batch=2, file=file, resume="auto")
    assert resumed.run == broken.id
    assert len(server.asked) - asked == 8, "answered questions are not asked again"
    assert resumed.results["own-task"].values.above.values.tolist() == [[1.0, 0.0, *[1.0] * 8]]


def test_a_task_that_only_writes_asks_a_server_for_no_log_probabilities(server: Server, store: Store, tmp_path: Path) -> None:
    served: Any = model(server)
    assert served.abilities == {"generate"}
    found = evaluate("own-task", served, store=store, file=write(tmp_path, WRITTEN, LETTERS[:3]))
    assert "exact_match 100.0%" in found.results["own-task"].summary()
    with pytest.raises(Exception, match="does not offer logprobs"):
        evaluate("own-task", served, store=store, file=write(tmp_path, CHOICES, LETTERS[:3]))
