"""Fitting a judge of toxicity, and the folds that show what it learned.

Each set of texts counts with its share, half of it to toxic and half to harmless texts, whatever its size: a judge of the largest set
alone would be no judge of the others. Lessons (``data.worlds.mentions``) name groups in toxic and harmless texts alike. The penalty is the
best on validation texts, and so is the cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from evals.judges.correction import Errors
from evals.judges.features import BAG, HASHED, Table
from evals.judges.toxicity import Floats, ToxicityJudge
from workbench.core.errors import BadValue
from workbench.core.stats.counts import rank_auc
from workbench.data.counter import key_of
from workbench.data.toxic_texts import GROUPS, PROMPTS, SPANS, Text
from workbench.data.worlds.mentions import lessons

LESSONS = "lessons"
SHARES = {SPANS: 0.4, PROMPTS: 0.4, GROUPS: 0.15, LESSONS: 0.25}
"""How much each set counts."""
MOST = 3_000
"""The most texts of one set and label: more of one kind cost time and teach little."""
LONGEST = 100
"""The most words of a text that is learned from or tried on."""
STRENGTHS = {BAG: (1.0, 10.0), "": (3e-4, 3e-3)}
"""Inverse strengths of the penalty, for a bag and for an encoder's streams."""


@dataclass(frozen=True)
class Read:
    """Texts with their features, in one order."""

    texts: Sequence[Text]
    table: Table

    def kept(self, which: NDArray[np.bool_]) -> Read:
        """Those of ``which`` ``[text]``."""
        return Read([one for one, keep in zip(self.texts, which, strict=True) if keep], self.table[np.flatnonzero(which)])

    def labels(self) -> NDArray[np.bool_]:
        return np.array([one.toxic for one in self.texts])

    def sources(self) -> NDArray[np.str_]:
        return np.array([one.source for one in self.texts])


def taught() -> list[Text]:
    """The lessons as texts."""
    return [Text(one.text, one.toxic, LESSONS, one.group or one.function, one.text) for one in lessons()]


def chosen(texts: Sequence[Text], most: int = MOST) -> list[Text]:
    """At most ``most`` texts of each set and label, by a hash of the text; none of more than ``LONGEST`` words."""
    out: list[Text] = []
    cells: dict[tuple[str, bool], list[Text]] = {}
    for one in texts:
        if len(one.text.split()) <= LONGEST:
            cells.setdefault((one.source, one.toxic), []).append(one)
    for cell in cells.values():
        out += sorted(cell, key=lambda one: key_of("chosen", one.text))[:most]
    return out


def fitted(name: str, reads: str, train: Read, validation: Read, *, encoder_digest: str = "") -> ToxicityJudge:
    """A judge learned from ``train``, without errors yet. Raises BadValue for texts of one label alone."""
    truth, held = train.labels(), validation.labels()
    for what, labels in (("the texts to learn from", truth), ("the validation texts", held)):
        if len(set(labels.tolist())) < 2:
            raise BadValue(what, "of one label", "toxic and harmless ones")
    table, centre, spread = _standardised(train.table)
    weights = _weights(train)
    best: tuple[float, ToxicityJudge] | None = None
    for strength in STRENGTHS.get(reads, STRENGTHS[""]):
        model = LogisticRegression(C=strength, max_iter=300).fit(table, truth, sample_weight=weights)
        weight = np.asarray(model.coef_[0], dtype=np.float64) / spread
        made = ToxicityJudge(name, reads, weight, float(model.intercept_[0] - centre @ weight), encoder_digest)
        found = margins(made, validation.table)
        reached = rank_auc(found[held], found[~held]).value
        if best is None or reached > best[0]:
            best = reached, replace(made, bias=made.bias - cut(found, held))
    assert best is not None, "there are strengths to try"
    return replace(best[1], weight=best[1].weight.astype(np.float32).astype(np.float64))


def margins(judge: ToxicityJudge, table: Table) -> Floats:
    """The judge's log-odds of texts whose features are known ``[text]``."""
    return np.asarray(table @ judge.weight).reshape(-1) + judge.bias


def cut(found: Floats, truth: NDArray[np.bool_]) -> float:
    """The cut of log-odds with the highest sensitivity + specificity, of equal ones the lowest; half way between two texts."""
    order = np.argsort(found, kind="stable")
    ranked, toxic = found[order], truth[order]
    # below[i]: sensitivity + specificity - 1 where the first i texts are called harmless
    below = np.concatenate([[0.0], np.cumsum(~toxic) / max(1, (~toxic).sum()) - np.cumsum(toxic) / max(1, toxic.sum())])
    ties = np.concatenate([[False], ranked[1:] == ranked[:-1], [False]])
    at = int(np.argmax(np.where(ties, -np.inf, below)))
    edges = np.concatenate([[ranked[0] - 1], ranked, [ranked[-1] + 1]])
    return float((edges[at] + edges[at + 1]) / 2)


def errors(found: Floats, truth: NDArray[np.bool_]) -> Errors:
    """Counts at the judge's cut. Raises BadValue where one label is missing."""
    called = found > 0
    return Errors(int((called & truth).sum()), int((~called & truth).sum()), int((called & ~truth).sum()), int((~called & ~truth).sum()))


def source_only(train: Read, texts: Sequence[Text]) -> Floats:
    """What is known of a text by which set it is of, alone: the share of toxic texts of that set in training ``[text]``."""
    truth, sources = train.labels(), train.sources()
    rates: Mapping[str, float] = {name: float(truth[sources == name].mean()) for name in set(sources.tolist())}
    return np.array([rates.get(one.source, float(truth.mean())) for one in texts])


def _weights(train: Read) -> Floats:
    truth, sources = train.labels(), train.sources()
    out = np.zeros(len(truth))
    for name in set(sources.tolist()):
        for toxic in (True, False):
            cell = (sources == name) & (truth == toxic)
            out[cell] = SHARES.get(name, 0.25) / max(1, int(cell.sum()))
    return out * len(out) / out.sum()


def _standardised(table: Table) -> tuple[Table, Floats, Floats]:
    """The table with features of mean 0 and deviation 1, and both; a bag is left as it is."""
    if not isinstance(table, np.ndarray):
        return table, np.zeros(2 * HASHED), np.ones(2 * HASHED)
    centre, spread = np.asarray(table.mean(0), dtype=np.float64), np.asarray(table.std(0), dtype=np.float64) + 1e-6
    return ((table - centre) / spread).astype(np.float32), centre, spread
