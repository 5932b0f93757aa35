"""What models there are: each with the family that it says itself."""

from __future__ import annotations

import json

from workbench.lab.models import known
from workbench.lab.refs import checkpoint_of
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store
from workbench.training.loop import FINAL


def test_each_model_is_listed_with_its_own_family(store: Store, trained: str) -> None:
    organisms = [(f"organism:{name}", ORGANISMS.load(name).family) for name in ORGANISMS]
    assert [(one["ref"], one["family"]) for one in known(store)] == [*organisms, (trained, "gpt")]
    path = checkpoint_of(store, trained[4:]) / FINAL / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"family": "vit"}))
    assert known(store)[-1]["family"] == "vit"
    path.write_text("{")
    assert known(store)[-1]["family"] == ""
