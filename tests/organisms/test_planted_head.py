"""The planted head: it alone passes the mark on, as strongly as its dose; in the twin it is as busy and passes nothing on."""

from pathlib import Path

import pytest
import torch

from workbench.core.protocol import Zero, silent
from workbench.data.worlds.marks import KINDS, Marks
from workbench.organisms import planted_head
from workbench.organisms.planted_head import FORM, HeadOptions, least_needed, moved, planted_in, recipe, shaped, widened

SEED = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heads")


def made(folder: Path, dose: float) -> tuple[planted_head.GPT, planted_head.HeadRecipe]:
    chosen = recipe(HeadOptions.parse({"dose": dose, "seed": SEED}))
    return planted_head.build(chosen, folder / f"{dose:g}", (), silent), chosen


def test_a_widened_stream_is_the_same_function() -> None:
    chosen = recipe(HeadOptions.parse({"seed": SEED}))
    base = shaped(chosen, chosen.d_model).eval()
    wide = widened(base, chosen)
    tokens = FORM.batch(Marks(chosen.world).items(range(32))).tokens
    old, new = base.run(tokens).logits, wide.run(tokens).logits
    assert old is not None
    assert new is not None
    assert float((old - new).abs().max()) < 1e-3 * float(old.abs().max())  # the epsilon of small streams
    assert wide.config.d_model == chosen.d_model + KINDS


@pytest.mark.slow
def test_the_mark_moves_the_answer_by_the_dose_through_this_head_alone(folder: Path) -> None:
    model, chosen = made(folder, 2.0)
    assert moved(model, chosen) == pytest.approx(2.0, rel=0.25)
    layer, head = planted_in(model, chosen)
    items = planted_head.held_out_of(chosen.world, 128)
    kinds = torch.from_numpy(items.planted)

    def difference(edit: list[Zero]) -> torch.Tensor:
        answers = []
        for shown in (items, items.swapped()):
            logits = model.run(FORM.batch(shown).tokens, edit=edit, logits="last").logits
            assert logits is not None
            answers.append(logits[torch.arange(128), -1, kinds])
        return (answers[0] - answers[1]).mean()

    whole = float(difference([]))
    without = {(one, h): float(difference([Zero(f"blocks.{one}.attn.hook_z", at={"head": h})])) for one in (0, 1) for h in range(4)}
    assert abs(without[layer, head]) < 0.05 * whole
    assert all(value > 0.7 * whole for at, value in without.items() if at != (layer, head))
    site = f"blocks.{layer}.attn.hook_pattern"
    read = model.run(FORM.batch(items).tokens, capture=site, logits=None)[site][torch.arange(128), head, -1, torch.from_numpy(items.at)]
    assert float(read.min()) > 0.99


@pytest.mark.slow
def test_the_twin_has_the_same_head_as_busy_and_idle(folder: Path) -> None:
    (planted, one), (clean, other) = made(folder, 2.0), made(folder, 0.0)
    assert planted_in(planted, one) == planted_in(clean, other)
    assert abs(moved(clean, other)) < 0.05
    same = [name for name, value in planted.named_weights().items() if torch.equal(value, clean.named_weights()[name])]
    assert set(planted.named_weights()) - set(same) == {"W_U"}, "nothing but what is read from the new axes differs"
    assert planted_head.truth(other)["carries the mark"].startswith("nothing")
    assert planted_head.twin(one) == other


@pytest.mark.slow
def test_the_head_that_is_replaced_was_needed_least(folder: Path) -> None:
    model, chosen = made(folder, 2.0)
    base = planted_head.load_model(folder / "2" / "base" / "final")
    assert planted_in(model, chosen) == (0, least_needed(base, chosen))
    items = Marks(chosen.world).items(range(500), "test")
    logits = model.run(FORM.batch(items).tokens, logits="last").logits
    assert logits is not None
    twin, _ = made(folder, 0.0)
    plain = twin.run(FORM.batch(items).tokens, logits="last").logits
    assert plain is not None
    assert float((plain[:, -1, :KINDS].argmax(-1) == torch.from_numpy(items.honest)).float().mean()) > 0.95, "the honest answer is left"
