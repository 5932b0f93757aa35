"""A judge of toxicity on trial: fitted, and laid beside those that know less, on the same texts that none of them has seen.

Beside it stand one that was not taught lessons, one that learned none of the sets it is tried on (each set in turn), a majority, one that
knows only which set a text is of, and a list of words (``evals.lexicon``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evals.judges.encoders import encoder
from evals.judges.features import BAG, read
from evals.judges.learning import LESSONS, MOST, Read, chosen, errors, fitted, margins, source_only, taught
from evals.judges.table import Row, case_rows, rows
from evals.judges.toxicity import Floats, ToxicityJudge
from evals.lexicon import Lexicon
from workbench.data import toxic_spans
from workbench.data.toxic_spans import Post, wording
from workbench.data.toxic_texts import SETS, SPANS, Text, side_of
from workbench.data.worlds.mentions import Mention

OWN = "own domain"


@dataclass(frozen=True)
class Trial:
    """The judge, and by contestant the log-odds (or whatever ranks) of the test texts and of the cases."""

    judge: ToxicityJudge
    tests: Sequence[Text]
    cases: Sequence[Mention]
    found: Mapping[str, tuple[Floats, Floats]]

    def rows(self, contestant: str = "judge") -> list[Row]:
        """The contestant's error table."""
        on_tests, on_cases = self.found[contestant]
        toxic = np.array([one.toxic for one in self.tests])
        return [
            Row.of(OWN, "all held-out texts", on_tests, toxic),
            *rows("set", [one.source for one in self.tests], on_tests, toxic),
            *rows("subgroup", [one.group for one in self.tests], on_tests, toxic),
            *case_rows(self.cases, on_cases),
        ]


def tried(name: str, reads: str, texts: Mapping[str, Sequence[Text]], cases: Sequence[Mention], *, most: int = MOST) -> Trial:
    """Fit a judge on ``texts`` (by side, as ``toxic_texts.texts`` gives them) and lessons, and try it and the others."""
    sides = {side: chosen(part, most if side == "train" else most // 3) for side, part in texts.items()}
    tests, validation = _read(reads, sides["test"]), _read(reads, sides["validation"])
    train = _read(reads, [*sides["train"], *taught()])
    table = read(reads, [one.text for one in cases])
    digest = "" if reads == BAG else encoder(reads).digest()
    judge = fitted(name, reads, train, validation, encoder_digest=digest)
    untaught = train.kept(train.sources() != LESSONS)
    found = {"judge": (margins(judge, tests.table), margins(judge, table))}
    plain = fitted(name, reads, untaught, validation)
    found["without lessons"] = margins(plain, tests.table), margins(plain, table)
    found |= _elsewhere(name, reads, train, validation, tests, table)
    ranks = _baselines(train, tests.texts, cases)
    kinds = {OWN: np.ones(len(tests.texts), dtype=bool)}
    for one in dict.fromkeys([*(t.source for t in tests.texts), *(t.group for t in tests.texts)]):
        kinds[one] = np.array([one in (t.source, t.group) for t in tests.texts])
    truth = tests.labels()
    known = {
        kind: errors(found["judge"][0][where], truth[where])
        for kind, where in kinds.items()
        if truth[where].any() and not truth[where].all()
    }
    return Trial(replace(judge, errors=known), tests.texts, cases, found | ranks)


def _read(reads: str, texts: Sequence[Text]) -> Read:
    return Read(texts, read(reads, [one.text for one in texts]))


def _elsewhere(name: str, reads: str, train: Read, validation: Read, tests: Read, table: Any) -> dict[str, tuple[Floats, Floats]]:
    """Of each test text what a judge says of it that learned no text of its set; cases by the mean of these judges."""
    held, on_cases = np.zeros(len(tests.texts)), []
    for source in [one for one in SETS if one in set(tests.sources().tolist())]:
        others = train.kept(train.sources() != source), validation.kept(validation.sources() != source)
        if any(len(set(part.labels().tolist())) < 2 for part in others):
            continue
        stranger = fitted(name, reads, *others)
        own = tests.sources() == source
        held[own] = margins(stranger, tests.table)[own]
        on_cases.append(margins(stranger, table))
    return {"other sets only": (held, np.mean(on_cases, axis=0))} if on_cases else {}


def _baselines(train: Read, tests: Sequence[Text], cases: Sequence[Mention]) -> dict[str, tuple[Floats, Floats]]:
    zeros = np.zeros(len(tests)), np.zeros(len(cases))
    known = source_only(train, tests) - 0.5
    sides: dict[str, list[Post]] = {"train": [], "validation": []}
    for file in toxic_spans.FILES:
        for post in toxic_spans.posts(file):
            side = side_of(Text("", True, SPANS, "", " ".join(wording(post.text))))
            if side in sides:
                sides[side].append(post)
    words = Lexicon.fitted(sides["train"], sides["validation"])
    listed = lambda text: max((words.rates.get(word, 0.0) for word in wording(text)), default=0.0) - words.level + 1e-12  # noqa: E731
    return {
        "majority": zeros,
        "set alone": (known, zeros[1]),
        "list of words": (np.array([listed(one.text) for one in tests]), np.array([listed(one.text) for one in cases])),
    }
