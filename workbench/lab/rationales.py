"""Do attributions of a tagger's marks agree with what people marked?

Of each row of tokens with some marked and some not, the tagger is asked about the token it is surest of: how much more it takes it for
marked than for plain. An attribution over the row's tokens is then laid beside the people's marks (``probes.quality_mask``). Three other
rankings stand beside it: random ones; the token asked about alone, which needs no explanation; and the tagger's own scores of all tokens,
which is how far the tagger itself agrees with the people. Agreement says that an explanation looks right to people, not that it is
faithful. No text is kept or named.

Source: DeYoung et al., ERASER, ACL 2020 (arXiv:1911.03429), section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from probes import INSTRUMENTS
from probes.quality_mask import average_precision, overlap
from probes.quality_removal import placed
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Inputs, Progress, silent
from workbench.core.stats.resampling import bootstrap
from workbench.data.labelled import LabelledRows

PLAIN, MARKED = 0, 1
DRAWS = 20
"""Random rankings, and random orders of what is equal."""
MEASURES = {"average precision": average_precision, "token F1": lambda place, candidate, mask: overlap(place, candidate, mask)}


@dataclass(frozen=True)
class Group:
    """Rows asked about one position: ids and marks ``[row, pos]``, lengths ``[row]``, the tagger's score of every token."""

    position: int
    ids: torch.Tensor
    lengths: torch.Tensor
    marked: np.ndarray
    content: np.ndarray
    score: np.ndarray

    def inputs(self) -> Inputs:
        """What an instrument is given."""
        ones = torch.ones(len(self.ids), dtype=torch.long)
        return Inputs(self.ids, lengths=self.lengths, targets=MARKED * ones, foils=PLAIN * ones)


def groups(model: HookedModel, rows: LabelledRows, most: int) -> Iterator[Group]:
    """The first ``most`` rows in which some tokens are marked and some are not, by the position that is asked about."""
    kept: dict[int, list[int]] = {}
    for number in range(len(rows)):
        batch = rows.batch([number])
        assert batch.targets is not None
        target = batch.targets[0].numpy()
        content = target >= 0
        if 0 < (target == MARKED).sum() < content.sum():
            kept.setdefault(int(np.where(content, _scores(model, batch)[0], -np.inf).argmax()), []).append(number)
            most -= 1
        if not most:
            break
    if not kept:
        raise BadValue("the rows", "none with some tokens marked and some not", "at least one: else nothing can be agreed on")
    for position, numbers in sorted(kept.items()):
        batch = rows.batch(numbers)
        assert batch.targets is not None
        target = batch.targets.numpy()
        real = np.ones(target.shape, bool) if batch.mask is None else batch.mask.numpy()
        lengths = torch.from_numpy(real.sum(1))
        yield Group(position, batch.tokens, lengths, target == MARKED, target >= 0, _scores(model, batch))


def _scores(model: HookedModel, batch: Any) -> np.ndarray:
    with torch.no_grad():
        logits = model.run(batch).logits
    assert logits is not None
    return (logits[..., MARKED] - logits[..., PLAIN]).double().numpy()


def agreement(
    model: HookedModel,
    rows: LabelledRows,
    methods: Mapping[str, Mapping[str, Any]],
    *,
    most: int = 200,
    seed: int = 0,
    progress: Progress = silent,
) -> pd.DataFrame:
    """One row a ranking and measure: its mean over rows with a 95 % bootstrap interval, and the paired gain over random rankings.

    ``methods``: names of attributions with their settings. Raises BadValue for no row that can be agreed on, and what the methods raise.
    """
    rng, found = np.random.default_rng(seed), {}
    every = list(groups(model, rows, most))
    for done, group in enumerate(every, start=1):
        for ranking, strength in _rankings(model, group, methods, rng).items():
            place = placed(strength, group.content, rng)
            for measure, fn in MEASURES.items():
                found.setdefault((ranking, measure), []).append(fn(place, group.content, group.marked).mean(0))
        progress(done, len(every), "positions")
    table = []
    for (ranking, measure), parts in found.items():
        values, random = np.concatenate(parts), np.concatenate(found["random", measure])
        mean, gain = bootstrap(values, bounds=(0.0, 1.0)), bootstrap(values - random, bounds=(-1.0, 1.0))
        table.append(
            (
                ranking,
                measure,
                mean.value,
                mean.interval.low,
                mean.interval.high,
                gain.value,
                gain.interval.low,
                gain.interval.high,
                len(values),
            )
        )
    names = ["ranking", "measure", "mean", "low", "high", "over random", "gain low", "gain high", "rows"]
    return pd.DataFrame(table, columns=names)


def _rankings(
    model: HookedModel, group: Group, methods: Mapping[str, Mapping[str, Any]], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Strengths ``[draw, row, pos]`` by what ranks."""
    shape = group.content.shape
    alone = np.zeros(shape)
    alone[:, group.position] = 1
    out = {
        "random": rng.random((DRAWS, *shape)),
        "the token asked about": np.broadcast_to(alone, (DRAWS, *shape)),
        "the tagger's scores": group.score[None],
    }
    for name, settings in methods.items():
        tool = INSTRUMENTS.load(name)
        spec = tool.spec.parse({"quantity": "logit-difference", "position": group.position, **settings}, what=f"settings of {name}")
        found = tool(model, group.inputs(), spec).values.attribution.values
        out[name] = np.where(group.content, np.nan_to_num(found), 0.0)[None]
    return out
