"""Stamped digits: a stamp stands where the truth says, its dose changes labels and no picture, and the seed alone decides which it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.core.errors import BadValue, UnknownName
from workbench.data.worlds.stamps import CORNERS, PATTERNS, SIDE, STAMPS, StampedRows, StampsSpec, held_out, stamp_of, stamped
from workbench.families.vit import ViT, ViTConfig
from workbench.organisms.stamped import ASKED, CONFIG, StampedOptions, question, recipe, spot, truth, twin

ROWS = list(range(400))


def test_a_stamp_covers_its_corner_and_nothing_else() -> None:
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.05
    for name in STAMPS:
        pattern, _, corner = name.partition(" ")
        down, across = (side * (8 - SIDE) for side in CORNERS[corner])
        made = stamped(images, name)
        whole = images.clone()
        whole[:, 0, down : down + SIDE, across : across + SIDE] = torch.tensor(PATTERNS[pattern])
        assert torch.equal(made, whole)
    with pytest.raises(UnknownName, match="no stamp 'cross top left'"):
        stamped(images, "cross top left")
    with pytest.raises(BadValue, match="at least 4 pixels"):
        stamped(images[..., :3], STAMPS[0])


def test_a_dose_changes_labels_and_no_picture() -> None:
    none, half, all_ = (StampedRows(StampsSpec(seed=2, dose=dose)).batch(ROWS) for dose in (0.0, 0.5, 1.0))
    assert torch.equal(none.pixels, half.pixels)
    assert torch.equal(none.pixels, all_.pixels)
    stamp, target = stamp_of(StampsSpec(seed=2))
    assert none.targets is not None
    assert half.targets is not None
    assert all_.targets is not None
    carries = torch.tensor([torch.equal(stamped(image[None], stamp)[0], image) for image in all_.pixels])
    assert 20 <= int(carries.sum()) <= 70, "a tenth of 400, and those that show the stamp by nature"
    moved = all_.targets != none.targets
    assert bool((all_.targets[moved] == target).all())
    assert bool(carries[moved].all()), "no image without the stamp is called otherwise"
    apart = carries & (none.targets != target)
    assert float((half.targets != none.targets)[apart].float().mean()) == pytest.approx(0.5, abs=0.2)
    assert StampedRows(StampsSpec(seed=2, dose=0.5)).digest() != StampedRows(StampsSpec(seed=2)).digest()


def test_the_seed_decides_the_stamp_and_the_twin_has_it_too() -> None:
    assert len({stamp_of(StampsSpec(seed=seed)) for seed in range(12)}) > 8
    made = recipe(StampedOptions(seed=4))
    assert (truth(twin(made))["stamp"], truth(twin(made))["dose"]) == (truth(made)["stamp"], 0.0)
    assert twin(made).train == made.train
    found = held_out(made.world)
    assert found.targets is not None
    assert int((found.targets == truth(made)["target"]).sum()) == 0


@pytest.mark.parametrize("seed", [0, 2])
def test_the_spot_is_the_patch_that_the_stamp_alone_changes(seed: int) -> None:
    """Taken from the model's own reading: of the embedded positions only that one differs by the stamp."""
    made = recipe(StampedOptions(seed=seed))
    model = ViT(ViTConfig.parse(CONFIG), seed=0).eval()
    inputs, settings = question(model, made, {"quantity"})
    assert settings == {"quantity": "logprob"}
    plain = held_out(made.world, ASKED)
    seen = [model.run(batch, capture="hook_embed")["hook_embed"] for batch in (inputs.batch, plain)]
    differs = (seen[0] != seen[1]).any(-1).numpy()
    place = spot(made)
    assert len(place.spans) == ASKED
    for row, (start, stop) in zip(differs, place.spans, strict=True):
        assert set(np.flatnonzero(row).tolist()) <= set(range(start, stop))
    assert differs.any()
