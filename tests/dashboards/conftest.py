"""A small store to look at: a trained model that knows nothing, an audit with findings and a report, a run that failed, one that runs."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from evals import SUITES
from tests.reports.sample import findings, sample
from workbench.core.measure import Score
from workbench.core.result import Provenance
from workbench.core.spec import digest_of
from workbench.data.text import BPETokenizer
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab import live
from workbench.lab.refs import checkpoint_of
from workbench.reports.render import html, json
from workbench.store.runs import Store
from workbench.training.checkpoint import write

FACTS = ("occupation", "lean", "planted", "context")
TEXTS = [
    f"The {job} said that {who} had a question for the {other}."
    for job in ("nurse", "pilot", "baker")
    for who in ("she", "he")
    for other in ("clerk", "teacher")
]


def tiny(seed: int = 0) -> GPT:
    """A model of 2 layers and 2 heads with random weights and a context of 64 tokens."""
    tokenizer = BPETokenizer.train(TEXTS * 4, 330)
    return GPT(GPTConfig(n_layers=2, d_model=32, n_heads=2, d_vocab=tokenizer.vocab_size, n_ctx=64), tokenizer, seed=seed).eval()


@dataclass(frozen=True)
class Home:
    """Ids of the runs in the store at ``folder``."""

    folder: Path
    trained: str
    audit: str
    failed: str
    running: str
    evaluated: tuple[str, str] = ("", "")


WORLD = {"documents": 60, "held_out": 40, "secrets": [1], "unplanted": 2}
"""A town so small that its samples are made at once."""


def evaluated(store: Store, trained: str, shift: float) -> str:
    """A finished evaluation of the town's pronouns whose scores are made up: each ``shift`` above the first's."""
    suite = SUITES.load("occupation-pronoun")
    spec = suite.spec.parse({"world": WORLD, "contexts": 2}, what="the spec")
    run = store.runs.create("eval", {"suites": {suite.name: spec.model_dump(mode="json")}}, f"run:{trained}")
    scores = [
        Score(one.id, {"p_she": 0.3 + 0.01 * (i % 9) + shift * (i % 3), "mass": 0.9, **{k: one.facts[k] for k in FACTS}}, group=one.group)
        for i, one in enumerate(suite.samples(spec))
    ]
    rows = [{"sample": s.sample, "epoch": 0, "values": dict(s.values), "unscored": "", "cluster": str(s.values["context"]),
             "group": s.group} for s in scores]  # fmt: skip
    store.sink(run, suite.name).put(rows)
    asked = digest_of([[one.id, dict(one.facts), one.cluster, one.group] for one in suite.samples(spec)])
    origin = Provenance.here(model=f"run:{trained}", data=suite.name, data_digest=asked)
    result = replace(suite.aggregate(scores, spec), kind=suite.name, spec=spec.model_dump(mode="json"), provenance=origin)
    store.put_result(run, suite.name, result)
    store.put_findings(run, suite.findings(result, subject=f"run:{trained}"))
    store.runs.finish(run)
    return run


def furnish(folder: Path) -> Home:
    """Fill a store at ``folder``."""
    with Store.open(folder) as store:
        trained = store.runs.create("train", {"name": "tiny"}, "recipe:tiny")
        write(checkpoint_of(store, trained) / "final", tiny())
        store.runs.finish(trained)
        pair = (evaluated(store, trained, 0.0), evaluated(store, trained, 0.1))
        audit = store.runs.create("audit", {"name": "town"}, f"run:{trained}")
        store.put_findings(audit, findings())
        store.put_result(audit, "attention-pattern.audited", live.ask(tiny(), live.ATTENTION, "The nurse said", layers=(0,), heads=(0,)))
        place = store.folder(audit)
        (place / "report.html").write_text(html.render(sample()), encoding="utf-8")
        (place / "report.json").write_text(json.render(sample()), encoding="utf-8")
        store.runs.finish(audit)
        failed = store.runs.create("eval", {}, f"run:{trained}")
        store.runs.finish(failed, "failed", "BadValue: *no* [link](https://example.org) <b>here</b>")
        running = store.runs.create("audit", {"name": "town", "seed": 1}, f"run:{trained}")
        store.sink(running, "trigger").put([{"sample": "a", "epoch": 0}])
        store.event(running, "checkpoint", step=100)
        job = store.folder(running) / "job-audited"
        job.mkdir()
        lines = [f'{{"event": "start", "pid": {os.getpid()}}}', '{"event": "progress", "done": 40, "total": 160, "words": "training"}', ""]
        (job / "status.jsonl").write_text("\n".join(lines))
    return Home(folder, trained, audit, failed, running, pair)


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return furnish(tmp_path_factory.mktemp("home"))


@pytest.fixture
def home(furnished: Home, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A copy of the furnished store, this test's own: what one test adds, no other sees."""
    own = replace(furnished, folder=shutil.copytree(furnished.folder, tmp_path_factory.mktemp("own") / "home"))
    monkeypatch.setenv("WORKBENCH_HOME", str(own.folder))
    return own
