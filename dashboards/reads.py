"""Everything the pages read: runs, findings, reports, progress, models and looks at them. The pages hold no other access.

Models are cached once for all sessions. Sharing is safe: nothing is ever registered on a model, so two sessions that listen or
edit at once do not meet. A cached model is keyed by its checkpoint's manifest, so new weights are a new entry.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboards.elements import told
from dashboards.shelf import Standing as Standing
from dashboards.shelf import findings as findings
from dashboards.shelf import forests_of as forests_of
from dashboards.shelf import run as run
from dashboards.shelf import run_table as run_table
from dashboards.shelf import runs as runs
from dashboards.shelf import standing as standing
from dashboards.shelf import store as store
from dashboards.shelf import store_if_any as store_if_any
from dashboards.shelf import table_of as table_of
from dashboards.shelf import verdict_counts as verdict_counts
from dashboards.shelf import verdicts as verdicts
from dashboards.shelf import when
from workbench.core.finding import Card
from workbench.core.measure import Instrument
from workbench.core.protocol import HookedModel
from workbench.core.result import Result
from workbench.lab import asking, calibrate, catalogs, jobs, lens, live, started
from workbench.lab import trainings as courses
from workbench.lab.allowed import check_reference, check_settings
from workbench.lab.recipe import shipped
from workbench.lab.refs import load
from workbench.lab.reporting import stored_report
from workbench.lab.settings import read_settings
from workbench.lab.trainings import Course
from workbench.store.records import RunRecord
from workbench.store.runs import Store

LENS, DIRECT = lens.LENS, "direct-logit-attribution"
REDRAWN_S = 6
"""How old the curves of a running training may be; building them takes longer than sending them."""
BASELINES = {
    "unknown-token": "padding token for every word",
    "zero": "zero embedding",
}


# --- runs -----------------------------------------------------------------------------------------------------


def results(name: str) -> dict[str, str]:
    """The digest of each stored result of a run, by name."""
    return store().result_digests(name)


def result(name: str, of: str) -> Result:
    """One stored result, checked against its digest."""
    return store().result(name, of).result


def plot(of: Result) -> Any:
    """The result's own chart, or None for one that has none."""
    try:
        return of.plot()
    except NotImplementedError:
        return None


def table(of: Result, most: int = 5000) -> pd.DataFrame:
    """The result's numbers, a row a cell; the first ``most`` where there are more."""
    return of.to_frame().head(most)


@dataclass(frozen=True)
class ReportFiles:
    """A stored report, checked: its two files' content and its digest."""

    html: bytes
    json: bytes
    digest: str

    @property
    def framed(self) -> str:
        """The report as an address of its own, for a frame that reaches nothing of the page around it."""
        return f"data:text/html;base64,{base64.b64encode(self.html).decode()}"


def report(name: str) -> ReportFiles | None:
    """The run's report, or None for a run that has none. Raises CorruptFile for one that was changed."""
    if not (store().home / "runs" / name / "report.json").is_file():
        return None
    found = stored_report(name, store=store())
    return ReportFiles(found.html.read_bytes(), found.json.read_bytes(), found.report.digest())


# --- trainings ------------------------------------------------------------------------------------------------


def trainings() -> tuple[RunRecord, ...]:
    """All trainings, newest first."""
    return courses.trainings(store())


def training_table(records: Sequence[RunRecord], words: Mapping[str, str]) -> pd.DataFrame:
    """One row a training, with ``words`` for each status."""
    rows = [(one.id, one.ref.removeprefix("recipe:"), words[one.status], when(one.created), when(one.finished)) for one in records]
    return pd.DataFrame(rows, columns=["run", "recipe", "status", "begun", "ended"])


def course(name: str) -> Course:
    """How one training stands now."""
    return courses.course(store(), name)


def training_charts(found: Course) -> list[tuple[str, dict[str, Any]]]:
    """Its curves so far, written out, each with words for it; of a running one drawn anew every few seconds."""
    return _training_charts(found.record.id, found.record.status, found)


@st.cache_resource(show_spinner=False, max_entries=8, ttl=REDRAWN_S)
def _training_charts(run: str, status: str, _found: Course) -> list[tuple[str, dict[str, Any]]]:
    del run, status
    return [(words, drawing.to_dict()) for words, drawing in courses.drawn(_found)]


def training_numbers(found: Course) -> pd.DataFrame:
    """Its steps as a table, newest first."""
    return courses.numbers(found)


@st.cache_resource(show_spinner=False)
def recipes() -> dict[str, str]:
    """The shipped recipes with their ten words; they come with the program, so they are read once."""
    return shipped()


def start_training(recipe: str, settings: str) -> str:
    """Start one in a process of its own; the folder of its job. Makes the store where there is none yet."""
    check_settings(read_settings(started.words_of(settings)), None)
    with Store.open() as made:
        return str(started.begin(made, recipe, settings))


def begun_training(folder: str) -> tuple[jobs.Status, str]:
    """How a job that was started here stands, and the run it works on ('' before that has begun)."""
    return started.run_of(store(), Path(folder))


def resume_training(found: Course) -> str:
    """Take a stopped one up again in a process of its own; the folder of its job."""
    return str(started.go_on(store(), found))


def stop_training(found: Course) -> None:
    """Ask a running one to stop."""
    started.stop(found)


# --- models -----------------------------------------------------------------------------------------------------


def models() -> tuple[live.Choice, ...]:
    """The models that can be opened now; none where there is no store yet. Raises StoreError for a broken one."""
    home = store_if_any()
    return live.choices(home) if home is not None else ()


def model(ref: str) -> HookedModel:
    """The model behind a reference, loaded once. Raises UsageError, MissingFile, CorruptFile, StoreError; BadValue for one that reaches
    where a page may not."""
    home = store_if_any()
    check_reference(ref, home.home if home is not None else None)
    return _model(ref, live.fingerprint(ref, home), home.where if home is not None else "")


def fingerprint(ref: str) -> str:
    """What changes when the weights behind a reference do."""
    home = store_if_any()
    check_reference(ref, home.home if home is not None else None)
    return live.fingerprint(ref, home)


@st.cache_resource(show_spinner="Loading the model …", max_entries=3)
def _model(ref: str, fingerprint: str, where: str) -> HookedModel:
    del fingerprint, where  # what the weights depend on
    live.leave_a_core()
    return load(ref, store=store_if_any())


def again(instrument: str, ref: str, text: str, **asked: Any) -> str:
    """The command that asks the same and keeps the answer."""
    return live.again(instrument, ref, text, **asked)


def quality_table(found: Any) -> pd.DataFrame:
    """Each measure of an attribution beside random ones."""
    return found.verdicts()


def lens_place(found: Result, row: int, column: int) -> tuple[str, pd.DataFrame]:
    """The likeliest answers at one cell of a lens's grid, with words for the place."""
    return lens.lens_place(found, row, column)


@st.cache_resource(show_spinner="Asking the model …", max_entries=64)
def look(ref: str, fingerprint: str, instrument: str, text: str, **asked: Any) -> Result:
    """One instrument on one text (``lab.live.ask``), kept while it is looked at: results are frozen."""
    del fingerprint
    return live.ask(model(ref), instrument, text, **asked)


@st.cache_resource(show_spinner=False, max_entries=64)
def next_tokens(ref: str, fingerprint: str, text: str, most: int) -> live.NextTokens:
    """What the model expects next (``lab.live.next_tokens``)."""
    del fingerprint
    return live.next_tokens(model(ref), text, most=most)


def offers(ref: str, fingerprint: str) -> tuple[asking.Offer, ...]:
    """Every instrument, and why a model cannot be asked some of them."""
    return _offers(ref, fingerprint)


@st.cache_resource(show_spinner="Opening the instruments …", max_entries=16)
def _offers(ref: str, fingerprint: str) -> tuple[asking.Offer, ...]:
    del fingerprint
    return asking.offers(model(ref))


def instrument(name: str) -> Instrument:
    """An instrument of the catalogue."""
    return asking.instrument(name)


def vocabulary(model: HookedModel) -> int:
    """How many tokens the model knows."""
    return int(getattr(model.config, "d_vocab", 2))


# --- calibration -----------------------------------------------------------------------------------------------

TOWN = "town"
"""What cards of before the exams were measured on: the audits of the town."""


SPIKE, DIRECTION, CANARIES = "spike", "spike-direction", "spike-canaries"
"""What cards are measured on that hold for one model: known doses planted into copies of it."""


def cards() -> tuple[Card, ...]:
    """Every card: measured in this home where there is one, then shipped. A store that cannot be read is said on the page. Raises
    CorruptFile."""
    home = None
    with told():
        home = store_if_any()
    return calibrate.listed(home) if home is not None else calibrate.listed()


def exams(found: Sequence[Card]) -> dict[str, str]:
    """The exams that have cards, with what each asks."""
    known = {name: entry.words for name, entry in catalogs.exams().items()}
    present = dict.fromkeys(card.exam or TOWN for card in found)
    ordered = [*(name for name in known if name in present), *(name for name in present if name not in known)]
    known |= {TOWN: "what audits of planted and clean towns find", SPIKE: "known doses planted into copies of a model at hand"}
    known |= {DIRECTION: "a direction of words planted into copies of a model at hand"}
    known |= {CANARIES: "texts read as often as told by copies of a model at hand"}
    return {name: known.get(name, name) for name in ordered}


def atlas(found: Sequence[Card]) -> pd.DataFrame:
    """One row a card."""
    rows, header = calibrate.rows_of(found)
    return pd.DataFrame(rows, columns=list(header))


def uncarded(found: Sequence[Card]) -> list[str]:
    """What none of the cards speaks of, in sentences: what that means first, then the names by status."""
    lines = calibrate.uncarded_words(found)
    return [calibrate.NOT_SAID, *lines] if lines else []


def card_labels(found: Sequence[Card]) -> list[str]:
    """A label for each card, no two alike."""
    return calibrate.titles(found)


def card_lines(card: Card) -> list[str]:
    """A card in sentences."""
    return calibrate.in_words(card)


def limits_drawn(found: Sequence[Card]) -> Any:
    """The chart of limits."""
    return calibrate.limits(found, "Limits of detection")


def response_drawn(card: Card) -> Any:
    """The chart of one card's doses."""
    return calibrate.responses([card], f"{card.of} on {card.family}: found by dose")
