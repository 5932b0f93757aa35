"""Group fairness on a real table: ``python benchmarks/adult_fairness.py [--steps N] [--rows N] [--seed S] [--data FOLDER]``.

A small decoder learns the census rows of the public ``adult`` set (Kohavi 1996; ``adult-train.csv``), written as texts, to say whether an
income is high; the suite ``group-fairness`` asks it about rows of ``adult-test.csv``, by sex and race, beside a logistic regression on the
same columns, which says how much there is to learn. The output is the table of docs/findings/adult.md.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from evals.own_task.rows import Row, rows_of
from evals.runner import run_suite
from evals.suites.group_fairness import SUITE, decided
from evals.suites.group_fairness_data import GroupFairnessSpec, text_of
from workbench.core.batch import IGNORE, TokenBatch
from workbench.data.text import BPETokenizer
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

COLUMNS = ("age", "work", "weight", "degree", "years", "marital", "job", "kin", "race", "sex", "gain", "loss", "hours", "land", "income")
TEXT = (
    "age {{age}} work {{work}} years {{years}} marital {{marital}} job {{job}} kin {{kin}} race {{race}} sex {{sex}} gain {{gain}} "
    "loss {{loss}} hours {{hours}} income"
)
ANSWERS = (" high", " low")
VOCABULARY = 700


@dataclass(frozen=True)
class TableRows:
    """Rows of the table with their answer (a ``RowData``): the answer alone is asked for."""

    texts: Sequence[Sequence[int]]
    answers: Sequence[int]
    pad: int

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        rows = [self.texts[int(i)] for i in indices]
        width = max(map(len, rows))
        tokens = torch.full((len(rows), width), self.pad)
        targets = torch.full((len(rows), width), IGNORE)
        for place, (row, i) in enumerate(zip(rows, indices, strict=True)):
            tokens[place, : len(row)] = torch.tensor(row)
            targets[place, len(row) - 1] = self.answers[int(i)]
        return TokenBatch(tokens, targets)

    def digest(self) -> str:
        return hashlib.sha256(repr((self.texts, self.answers)).encode()).hexdigest()


def learned(rows: Sequence[Row], spec: GroupFairnessSpec, steps: int, seed: int) -> GPT:
    """A decoder of the table."""
    texts = [text_of(spec, row, {}) for row in rows]
    tokenizer = BPETokenizer.train([text + answer for text in texts[:4000] for answer in ANSWERS], VOCABULARY)
    ids = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in texts]
    says = [tokenizer.encode(answer) for answer in ANSWERS]
    assert all(len(one) == 1 for one in says), "each answer is one token"
    high = [row.columns["income"].startswith(">") for row in rows]
    data = TableRows(ids, [says[0 if one else 1][0] for one in high], tokenizer.eos_id)
    config = GPTConfig.parse({"n_layers": 2, "d_model": 64, "n_heads": 4, "d_vocab": tokenizer.vocab_size, "n_ctx": max(map(len, ids)) + 8,
                              "init_std": 0.125})  # fmt: skip
    how = {"steps": steps, "batch_rows": 48, "lr": 2e-3, "min_lr": 5e-5, "warmup": 50, "beta2": 0.99, "seed": seed, "threads": 1}
    model = GPT(config, tokenizer, seed=seed)
    with tempfile.TemporaryDirectory() as out:
        train(model, data, TrainSpec.parse(how), out=Path(out))
    return model.eval()


def features(row: Row) -> dict[str, Any]:
    """A row's columns as the logistic regression takes them."""
    numbers = ("age", "years", "gain", "loss", "hours")
    return {
        name: float(row.columns[name]) if name in numbers else row.columns[name] for name in COLUMNS if name not in ("income", "weight")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Group fairness on the adult census rows.")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("WORKBENCH_DATA_MIRROR", "data")) / "adult")
    given = parser.parse_args()
    torch.set_num_threads(1)
    spec = GroupFairnessSpec.parse(
        {"file": str(given.data / "adult-test.csv"), "columns": COLUMNS, "text": TEXT, "label": "income", "positive": ">50K.",
         "answers": ANSWERS, "groups": ("sex", "race"), "most": given.rows}
    )  # fmt: skip
    rows = rows_of([given.data / "adult-train.csv"], columns=COLUMNS)
    test = rows_of([given.data / "adult-test.csv"], columns=COLUMNS)[: given.rows]
    baseline = make_pipeline(DictVectorizer(), MaxAbsScaler(), LogisticRegression(max_iter=2000))
    baseline.fit([features(row) for row in rows], [row.columns["income"].startswith(">") for row in rows])
    guessed = baseline.predict_proba([features(row) for row in test])[:, 1]
    high = np.array([row.columns["income"].startswith(">") for row in test])
    model = learned(rows, spec, given.steps, given.seed)
    result = run_suite(SUITE, model, spec)
    found = decided(result)
    print(f"{given.steps} steps, seed {given.seed}, {given.rows} test rows")
    print(f"area under the curve {roc_auc_score(found.label, found.score):.3f}; logistic regression {roc_auc_score(high, guessed):.3f}\n")
    print("| measure | difference | interval | verdict |\n|---|---|---|---|")
    for finding in SUITE.findings(result, subject="the decoder"):
        if finding.effect is None:
            print(f"| {finding.measure} | not defined | | {finding.verdict} |")
            continue
        within = f"[{finding.interval.low:.3f}, {finding.interval.high:.3f}]" if finding.interval is not None else "none"
        print(f"| {finding.measure} | {finding.effect:.3f} | {within} | {finding.verdict} |")


if __name__ == "__main__":
    main()
