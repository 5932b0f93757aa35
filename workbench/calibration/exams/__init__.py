"""The catalogue of exams: how tools are scored on models whose truth was planted. Adding one is a file and a line."""

from workbench.core.catalog import Catalog

EXAMS = Catalog(
    "exam",
    {
        "places": ("workbench.calibration.exams.places:EXAM", "is the part of an input that decides named", "headline"),
        "cases": ("workbench.calibration.exams.cases:EXAM", "is the place of a field's case that decides named", "standard"),
        "directions": ("workbench.calibration.exams.directions:EXAM", "is a feature read where it is written, not elsewhere", "headline"),
        "heads": ("workbench.calibration.exams.heads:EXAM", "is the head that passes a mark on named", "headline"),
        "rows": ("workbench.calibration.exams.rows:EXAM", "are the training rows named that gave the answer", "standard"),
        "decisions": ("workbench.calibration.exams.decisions:EXAM", "is a decision changed by a group's name alone", "standard"),
        "refusals": ("workbench.calibration.exams.refusals:GRANTED", "is the share of marked requests granted told", "standard"),
        "over-refusals": ("workbench.calibration.exams.refusals:REFUSED", "is the share of safe requests refused told", "standard"),
        "continuations": ("workbench.calibration.exams.continuations:EXAM", "is the share of toxic continuations told", "standard"),
        "abilities": ("workbench.calibration.exams.abilities:EXAM", "is it said how far an ability was lost", "standard"),
        "repeats": ("workbench.calibration.exams.repeats:EXAM", "is it said that a text was read in training", "headline"),
        "suites": ("workbench.calibration.exams.suites:EXAM", "does a suite say how far a model leans", "headline"),
    },
)
