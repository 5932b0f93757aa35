"""Attributions of the span tagger beside what people marked: ``python benchmarks/rationales.py [--model REF] [--posts N] [METHOD ...]``.

Without ``--model`` the recipe `bert-toxic-spans` is trained first, in a store of its own that is thrown away. Held-out posts of the set
`toxic-spans`; no post is printed. Of each post with some tokens marked, the tagger is asked about the token it is surest of; every ranking
of the tokens is laid beside the annotators' (average precision; F1 of as many first tokens as they marked), means with 95 % intervals over
posts, and the gain over random rankings on the same posts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

METHODS = ("saliency", "input-x-gradient", "smooth-grad", "gradient-shap", "occlusion", "shapley")
SETTINGS: dict[str, dict[str, Any]] = {
    "gradient-shap": {"baseline": "mean"},
    "occlusion": {"filler": "token"},
    "shapley": {"filler": "token", "samples": 12},
}


def tagger(ref: str, folder: Path) -> Any:
    """The model asked about, trained here where none is named."""
    from workbench.lab.refs import load
    from workbench.lab.run import train
    from workbench.store.runs import Store

    return load(ref) if ref else train("bert-toxic-spans", store=Store.open(folder)).model


def main() -> None:
    parser = argparse.ArgumentParser(description="Attributions of the span tagger beside what people marked.")
    parser.add_argument("methods", nargs="*", default=list(METHODS), metavar="METHOD")
    parser.add_argument("--model", default="", metavar="REF")
    parser.add_argument("--posts", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    from evals.tasks.toxic_spans import ToxicSpansSpec, pieces
    from workbench.data.toxic_spans import splits
    from workbench.lab.rationales import agreement

    with tempfile.TemporaryDirectory() as folder:
        model = tagger(given.model, Path(folder))
    assert model.tokenizer is not None
    rows = pieces(splits()["test"], model.tokenizer, ToxicSpansSpec.parse({}).length).rows
    found = agreement(model, rows, {name: SETTINGS.get(name, {}) for name in given.methods}, most=given.posts)
    for measure, part in found.groupby("measure", sort=False):
        print(f"{measure}, {int(part['rows'].iloc[0])} rows")
        for row in part.to_dict("records"):
            said = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            gain = (
                ""
                if row["ranking"] == "random"
                else f"; over random {row['over random']:+.3f} [{row['gain low']:+.3f}, {row['gain high']:+.3f}]"
            )
            print(f"  {row['ranking']:24} {said}{gain}")


if __name__ == "__main__":
    main()
