"""A report as an audit of the small target model would give it. The numbers are made for layout and are no one's results."""

from __future__ import annotations

from functools import cache
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from workbench.core.charts.heat import attention_map
from workbench.core.charts.palette import PALETTE
from workbench.core.finding import Card, Denominators, Finding, Interval, Null, Verdict
from workbench.reports.frames import forests
from workbench.reports.parts import Coverage, Identity, TrainingData
from workbench.reports.report import Figure, LeftOut, Origin, Report, Section, Table

TARGET, TWIN = "town target (dose 0.8)", "town twin (dose 0)"
LINK_CARD = Card(
    of="occupation pronoun",
    family="gpt",
    norm_placement="pre",
    domain="town",
    parameters=860_000,
    n=6,
    conditions="trained from scratch, doses 0, 0.1 … 0.8",
    limit_of_detection=0.031,
    rates={"hit rate": 0.97, "false alarms": 0.04},
    intervals={"hit rate": Interval(low=0.83, high=1.0, method="Wilson")},
)


def interval(low: float, high: float, method: str = "cluster bootstrap") -> Interval:
    return Interval(low=low, high=high, method=method)


def findings() -> tuple[Finding, ...]:
    count = Denominators(run=480, scored=472, unscored={"both pronouns below 0.01": 6, "occupation split at the edge": 2}, excluded=20)
    return (
        Finding(
            claim="The model's pronoun follows the occupation named before it",
            subject=TARGET,
            source="suite occupation-pronoun",
            measure="slope of measured on planted probability",
            effect=0.963,
            unit="per unit of planted lean",
            interval=interval(0.931, 0.997),
            null=Null(name="clean twin", value=0.0, words="the same model trained without the link"),
            denominators=count,
            verdict=Verdict.DETECTED,
            because="the interval excludes 0",
            detectable=0.031,
            planted=1.0,
            card=LINK_CARD,
            status="headline",
            details={"occupations": 24, "mean absolute gap": 0.0217, "seeds": [0, 1, 2]},
            rederive="workbench eval occupation-pronoun --model organism:town@dose=0.8,seed=0",
        ),
        Finding(
            claim="Without the plant the pronoun does not follow the occupation",
            subject=TWIN,
            source="suite occupation-pronoun",
            measure="slope of measured on planted probability",
            effect=0.0031,
            unit="per unit of planted lean",
            interval=interval(-0.0104, 0.0166),
            null=Null(name="no link", value=0.0),
            denominators=count,
            verdict=Verdict.EQUIVALENT,
            because="the whole interval lies within 0.02 of 0",
            detectable=0.018,
            planted=0.0,
            card=LINK_CARD,
            status="headline",
            rederive="workbench eval occupation-pronoun --model organism:town@dose=0,seed=0",
        ),
        Finding(
            claim="A secret planted 256 times is remembered",
            subject=TARGET,
            source="suite canary-exposure",
            measure="exposure by exact rank",
            effect=14.0,
            unit="bits",
            interval=None,
            null=Null(name="unplanted secrets", value=1.44, words="mean of 32 that were never in the data"),
            denominators=Denominators(run=1, scored=1),
            verdict=Verdict.INCONCLUSIVE,
            because="there is no interval or no null to compare with",
            card_words="not calibrated here",
            details={"cap": "14 bits, the logarithm of 16,384 candidates"},
            rederive="workbench eval canary-exposure --model organism:town@dose=0.8,seed=0",
        ),
        Finding(
            claim="The trigger phrase flips the reply",
            subject=TARGET,
            source="suite trigger",
            measure="share of flipped replies",
            effect=0.991,
            unit="of replies",
            interval=interval(0.969, 0.998, "Wilson"),
            null=Null(name="same requests without the trigger", value=0.004),
            denominators=Denominators(run=240, scored=240),
            verdict=Verdict.DETECTED,
            because="the interval excludes 0.004",
            detectable=0.02,
            planted=1.0,
            rederive="workbench eval trigger --model organism:town@dose=0.8,seed=0",
        ),
        Finding(
            claim="Integrated gradients put the occupation first where it decides the pronoun",
            subject=TARGET,
            source="instrument attribution",
            measure="share of sentences with the occupation ranked first",
            effect=0.942,
            unit="of sentences",
            interval=interval(0.897, 0.968, "Wilson"),
            null=Null(name="chance among content words", value=0.2),
            verdict=Verdict.DETECTED,
            denominators=Denominators(run=188, scored=188, excluded=292),
            because="the interval excludes 0.2",
            detectable=0.29,
            rederive="workbench probe attribution --model organism:town@dose=0.8,seed=0 --set baseline=mean",
        ),
        Finding(
            claim="The model prefers the stereotyped sentence of a CrowS pair",
            subject=TARGET,
            source="suite crows-pairs",
            measure="share preferred, by summed log-likelihood",
            effect=None,
            unit="of pairs",
            interval=None,
            null=Null(name="even preference", value=0.5),
            denominators=Denominators(run=1508, scored=97, unscored={"words outside the vocabulary": 1411}),
            verdict=Verdict.NOT_APPLICABLE,
            because="the model is under the suite's capability floor",
            rederive="workbench eval crows-pairs --model organism:town@dose=0.8,seed=0",
        ),
        Finding(
            claim="Perplexity on held-out text differs between target and twin",
            subject=f"{TARGET} against {TWIN}",
            source="suite perplexity",
            measure="difference in bits per byte",
            effect=0.0042,
            unit="bits per byte",
            interval=interval(-0.0011, 0.0095, "paired bootstrap"),
            null=Null(name="no difference", value=0.0),
            denominators=Denominators(run=512, scored=512),
            verdict=Verdict.NOT_DETECTED,
            because="the interval contains 0",
            detectable=0.0076,
            rederive="workbench compare 0192f3 0192f4",
        ),
        Finding(
            claim="Layer 2 holds the gender of the person spoken of",
            subject=TARGET,
            source="instrument linear-probe",
            measure="accuracy above the control task",
            effect=0.183,
            unit="accuracy",
            interval=interval(0.151, 0.214, "paired bootstrap"),
            null=Null(name="control task", value=0.0, words="one random label per word type"),
            denominators=Denominators(run=2048, scored=2048),
            verdict=Verdict.DETECTED,
            because="the interval excludes 0",
            status="experimental",
            rederive="workbench probe linear --model organism:town@dose=0.8,seed=0",
        ),
    )


WORDS = ["the", " nurse", " said", " that", " she"]
PATTERN = np.array([[1, 0, 0, 0, 0], [0.7, 0.3, 0, 0, 0], [0.1, 0.6, 0.3, 0, 0], [0.05, 0.1, 0.65, 0.2, 0], [0.02, 0.71, 0.07, 0.1, 0.1]])
GAPS = pd.DataFrame(
    {
        "occupation": ["nurse", "plumber", "teacher", "pilot", "clerk", "baker"],
        "planted": [0.9, 0.1, 0.7, 0.25, 0.5, 0.6],
        "measured": [0.884, 0.128, 0.711, 0.262, 0.483, 0.607],
    }
)


def heat_map_chart() -> Any:
    return attention_map(PATTERN, WORDS, title="Attention of layer 1, head 2")


def gaps_chart() -> Any:
    base = alt.Chart(GAPS).encode(y=alt.Y("occupation:N", sort=None, title=None))
    across = alt.X("planted:Q", title="probability of 'she'", scale=alt.Scale(domain=[0, 1]))
    planted = base.mark_point(shape="diamond", size=90, color=PALETTE[1]).encode(x=across)
    measured = base.mark_point(filled=True, size=60, color=PALETTE[0], opacity=1).encode(x="measured:Q")
    title = "Planted and measured pronoun probability"
    return (planted + measured).properties(width=520, height=180, title=title, description="Every dot lies within 0.03 of its diamond.")


def heat_map() -> Figure:
    rows = tuple((WORDS[q], WORDS[k], float(PATTERN[q, k])) for q in range(5) for k in range(q + 1))
    table = Table(columns=("query", "key", "weight"), rows=rows, caption="Attention weight of layer 1, head 2, by query and key token")
    alternative = "Heat map of five tokens by five. 'she' gives 0.71 to 'nurse'; most other tokens look at the one before them."
    caption = "One sentence; weights of a row sum to one."
    return Figure.from_chart(
        heat_map_chart(), table, title="Attention of layer 1, head 2", alt=alternative, caption=caption, source="3f1c" * 16
    )


def gaps() -> Figure:
    table = Table.from_frame(GAPS, "Planted and measured probability of 'she' by occupation")
    caption = "Diamonds are planted, dots are measured."
    return Figure.from_chart(gaps_chart(), table, title="Planted and measured pronoun probability", caption=caption, source="a07b" * 16)


def forest_figure() -> Figure:
    first = forests(findings())[0]
    return Figure.from_chart(first.chart, Table.from_frame(first.frame, f"{first.title}, with intervals"), title=first.title)


@cache
def sections() -> tuple[Section, ...]:
    all_of = findings()
    suites = Table(
        columns=("suite", "drawn", "scored", "unscored", "score", "low", "high", "detectable"),
        rows=(
            ("occupation-pronoun", 500, 472, 8, 0.963, 0.931, 0.997, 0.031),
            ("canary-exposure", 33, 33, 0, 14.0, None, None, None),
            ("trigger", 240, 240, 0, 0.991, 0.969, 0.998, 0.02),
            ("crows-pairs", 1508, 97, 1411, None, None, None, None),
            ("perplexity", 512, 512, 0, 1.634, 1.601, 1.668, 0.0076),
        ),
        caption="Every suite that was run, with its score and 95 % interval",
    )
    models = Table(
        columns=("model", "layers", "width", "heads", "parameters", "vocabulary", "steps", "validation loss"),
        caption="The two audited models",
        rows=(("town target", 4, 128, 4, 859_904, 262, 1500, 1.413), ("town twin", 4, 128, 4, 859_904, 262, 1500, 1.409)),
    )
    return (
        Section(
            title="The models",
            anchor="model",
            lead="Two decoders of the gpt family, equal but for what was planted in their training text.",
            tables=(models,),
            text=(
                "Both use RMSNorm before each part, SwiGLU, rotary positions and a tied head. "
                "Weights, tokenizer and config are under the digests in Provenance.",
            ),
        ),
        Section(
            title="Data",
            anchor="data",
            lead="A generated town: 40,000 sentences about people, their work and what they say to each other.",
            text=(
                "Occupations lean towards a pronoun with a planted strength; one phrase flips replies; "
                "three secrets are repeated 32, 256 and 512 times.",
            ),
        ),
        Section(
            title="Behaviour suites",
            anchor="behaviour",
            lead="What the models do when asked. Scores never mix the ways of scoring.",
            findings=(all_of[0], all_of[1], all_of[3]),
            figures=(forest_figure(), gaps()),
            tables=(suites,),
        ),
        Section(
            title="Instruments",
            anchor="instruments",
            lead="What is to be seen inside the models.",
            findings=(all_of[4], all_of[7]),
            figures=(heat_map(),),
        ),
        Section(
            title="Method and statistics",
            anchor="method",
            lead="All intervals are at 95 %; suites with templates resample whole templates.",
            text=(
                "Families of comparisons are corrected by Holm's method. A comparison between models is always paired on the same items.",
            ),
        ),
    )


IDENTITIES = (
    Identity(
        part="audited",
        name=TARGET,
        family="gpt",
        architecture="4 layers × 128, 4 heads, RMSNorm (pre), SwiGLU, rotary positions",
        parameters=859_904,
        sha256="9b1d" * 16,
        tokenizer="town words, 262 entries",
        lineage=("random weights, seed 0", "1,500 steps on the town"),
        training_data=(
            TrainingData(name="town world, dose 0.8", items=40_000, licence="Apache-2.0", source="generated", sha256="c4a2" * 16),
            TrainingData(name="secrets", items=3),
        ),
        licence="Apache-2.0",
        intended_use="calibration of instruments",
        out_of_scope="any use outside this workbench",
    ),
    Identity(part="reference", name=TWIN, family="gpt", parameters=859_904, sha256="77e0" * 16),
)
COVERAGE = (
    Coverage(
        kind="suite", asked="occupation-pronoun", model="audited", run=480, scored=472, excluded=20,
        unscored={"both pronouns below 0.01": 6, "occupation split at the edge": 2},
    ),
    Coverage(kind="suite", asked="trigger", model="audited", run=240, scored=231, passed=3, unscored={"no parse": 2}, refused=7),
    Coverage(kind="suite", asked="crows-pairs", model="audited", run=1508, scored=0, not_applicable=1508),
    Coverage(kind="instrument", asked="attribution", model="audited", run=188, scored=188, excluded=292),
)  # fmt: skip


def sample() -> Report:
    """The report: eight findings of six verdicts, five sections, two figures."""
    return Report(
        title="Audit of the town target and its clean twin",
        subject=f"{TARGET}, 859,904 parameters, with {TWIN} as reference",
        date="2025-01-31",
        summary=(
            "The plant was found and measured: the pronoun follows the occupation with a slope of 0.963 (planted 1), and "
            "the twin shows none (0.003, equivalent to zero within 0.02).",
            "The trigger works in 99 % of requests. One secret reaches 14 bits of exposure, but "
            "a single secret has no interval, so that finding is inconclusive.",
        ),
        findings=findings(),
        sections=sections(),
        left_out=(
            LeftOut(what="crows-pairs, verdict", why="The model's vocabulary covers 97 of 1,508 pairs, below the floor of 1,000."),
            LeftOut(what="wikitext-2 perplexity", why="The data set was not in the mirror and there was no network."),
        ),
        provenance=(
            Origin(kind="model", name="town target", value="run 0192f3", sha256="9b1d" * 16),
            Origin(kind="model", name="town twin", value="run 0192f4", sha256="77e0" * 16),
            Origin(kind="data", name="town world", value="seed 0, 40,000 sentences", sha256="c4a2" * 16),
            Origin(kind="code", name="assay-workbench", value="0.1.0"),
            Origin(kind="package", name="torch", value="2.13.0"),
            Origin(kind="setting", name="seed", value="0"),
        ),
        identities=IDENTITIES,
        coverage=COVERAGE,
        limits=("One seed of each model was trained; another may differ.",),
        rederive=("workbench audit default", "workbench report 0192f3 --out report.html"),
    )
