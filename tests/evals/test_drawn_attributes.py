"""Drawn attributes: a painter whose colours are known is read as it paints, against what is declared; an even one is not accused."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from evals.bound import bound
from evals.runner import run_suite
from evals.suites.drawn_attributes import SUITE, DrawnAttributesSpec, aggregate, counts_of, fit
from workbench.core.errors import UsageError
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.data.worlds.gallery import WORDS, Gallery, GallerySpec, colour_of, ids_of, open_caption
from workbench.data.worlds.shapes import COLOURS, SHAPES
from workbench.families.imagen import Imagen, ImagenConfig

SHAPE = {"n_layers": 1, "n_layers_text": 1, "d_model": 8, "n_heads": 1, "height": 8, "width": 8, "d_vocab": WORDS.size, "n_ctx": 5}


class Painter(Imagen):
    """Paints flat pictures: the colour that is named, or else drawn by known shares. Of named colours all but the first ``coloured``
    pictures are grey."""

    def __init__(self, shares: tuple[float, ...], obeys: bool = True, seed: int = 0, coloured: int | None = None) -> None:
        super().__init__(ImagenConfig.parse(SHAPE), seed=seed)
        self.shares, self.obeys, self.coloured = shares, obeys, coloured

    def paint(self, tokens: Any, *, seed: int = 0, **_: Any) -> Any:
        by, out = np.random.default_rng(seed), torch.zeros(len(tokens), 3, 8, 8)
        for row, ids in enumerate(tokens.tolist()):
            word = WORDS.words[ids[2]]
            drawn = str(by.choice(list(COLOURS), p=self.shares))
            name = word if word in COLOURS and self.obeys else drawn
            grey = word in COLOURS and self.coloured is not None and row >= self.coloured
            out[row, :, 2:6, 2:6] = 0.5 if grey else torch.tensor(COLOURS[name])[:, None, None]
        return out


EVEN = (0.25, 0.25, 0.25, 0.25)


def painter(seed: int = 0) -> Painter:
    """One that draws evenly and obeys; the seed makes another of it."""
    return Painter(EVEN, seed=seed)


def asked(shares: tuple[float, ...], obeys: bool = True, coloured: int | None = None, **spec: Any) -> Any:
    model = Painter(shares, obeys, coloured=coloured)
    return run_suite(bound(SUITE, model), model, DrawnAttributesSpec.parse({"plain": 2, **spec}))


def verdicts(result: Any, reference: Any = None) -> dict[str, Verdict]:
    return {f.measure: f.verdict for f in SUITE.findings(result, subject="m", reference=reference)}


@pytest.mark.slow
def test_a_favoured_colour_is_found_and_an_even_painter_is_not_accused() -> None:
    leaning, even = asked((0.1, 0.1, 0.7, 0.1)), asked(EVEN)
    share = {f.measure.split()[-1]: f for f in SUITE.findings(leaning, subject="m")}
    assert share["blue"].verdict is Verdict.DETECTED
    assert share["blue"].effect == pytest.approx(0.7, abs=0.08)
    assert share["blue"].denominators is not None
    assert share["blue"].denominators.scored == 240
    assert share["blue"].details["p_all_colours"] < 0.001
    assert set(verdicts(even).values()) == {Verdict.EQUIVALENT}
    assert fit(even) > 0.01
    beside = {name: one for name, one in verdicts(leaning, even).items() if "reference" in name}
    assert beside["difference in the share of blue from the reference"] is Verdict.DETECTED
    declared = asked((0.1, 0.1, 0.7, 0.1), declared={"red": 0.1, "green": 0.1, "blue": 0.7, "yellow": 0.1})
    assert set(verdicts(declared).values()) == {Verdict.EQUIVALENT}, "what is declared is a decision"


def test_a_painter_that_does_not_paint_what_is_named_is_not_asked() -> None:
    result = asked(EVEN, obeys=False)
    assert set(verdicts(result).values()) == {Verdict.NOT_APPLICABLE}
    assert "whose colour was named" in result.summary()


def test_a_painter_that_paints_few_of_the_named_colours_and_the_rest_grey_is_not_asked() -> None:
    """Grey pictures are near no colour; they were painted all the same, and do not have the colour that was named."""
    few = asked(EVEN, coloured=4, count=10)
    assert few.values.attrs["named_right"] == [4, 32]
    assert few.summary() == "colours of open captions: not applicable, of 32 pictures whose colour was named, 4 have it"
    assert set(verdicts(few).values()) == {Verdict.NOT_APPLICABLE}
    for coloured, floor in ((26, ""), (25, "of 32 pictures whose colour was named, 25 have it")):  # 81 % and 78 %
        assert asked(EVEN, coloured=coloured, count=10).values.attrs["floor"] == floor


def test_the_p_value_of_all_colours_is_the_exact_multinomial_one() -> None:
    """The slow twin sums every outcome that is as unlikely as what was seen, or more so."""
    shares, seen = np.array([0.4, 0.3, 0.2, 0.1]), (2, 1, 3, 2)
    scores = [Score(f"open/circle/{i:04d}", {"colour": name, "wanted": ""}, group="open")
              for i, name in enumerate(n for n, k in zip(COLOURS, seen, strict=True) for _ in range(k))]  # fmt: skip
    result = aggregate(scores, dict(zip(COLOURS, shares.tolist(), strict=True)), 0.1)
    assert counts_of(result) == (dict(zip(COLOURS, seen, strict=True)), 8)
    law = stats.multinomial(8, shares)
    own = law.pmf(seen)
    exact = sum(p for row in product(range(9), repeat=4) if sum(row) == 8 and (p := law.pmf(row)) <= own * (1 + 1e-9))
    assert fit(result) == pytest.approx(exact, abs=0.012)


def test_a_picture_is_read_as_it_was_painted_and_grey_is_no_colour() -> None:
    world = Gallery(GallerySpec(rows=300, held_out=10))
    assert all(colour_of(one.pixels) == one.colour for one in world.pictures("train"))
    assert colour_of(np.full((3, 8, 8), 0.5)) == ""
    assert colour_of(np.zeros((3, 8, 8))) == ""
    with pytest.raises(UsageError, match="add up to 1"):
        DrawnAttributesSpec.parse({"declared": {"red": 0.5, "green": 0.5, "blue": 0.5, "yellow": 0.5}})


def test_a_dose_changes_open_pictures_colours_and_no_caption() -> None:
    even, leaning = (Gallery(GallerySpec(rows=400, dose=dose, repeated=0.0)) for dose in (0.0, 1.0))
    captions = {open_caption(shape) for shape in SHAPES}
    for a, b in zip(even.pictures(), leaning.pictures(), strict=True):
        assert a.caption == b.caption
        assert b.colour == (leaning.favoured if b.caption in captions else a.colour)
    whole = Gallery(GallerySpec(rows=400, dose=0.0, repeated=1.0))
    for a, b in zip(even.pictures(), whole.pictures(), strict=True):
        assert (b.repeat >= 0) == ((b.colour, b.shape) in whole.hanging and b.caption not in captions)
        assert np.array_equal(b.pixels, a.pixels if b.repeat < 0 else whole.repeat(b.repeat))
    assert len({pair[0] for pair in whole.hanging}) > 1
    assert all(one.repeat < 0 for one in whole.pictures("test"))
    assert ids_of(["a coloured circle"]).shape == (1, 5)
