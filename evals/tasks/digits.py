"""Handwritten digits for an image classifier: each of a split's held-out images, once.

Data: the 1,797 images of scikit-learn (Alpaydin and Kaynak 1998), one in five held out, of each class alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PositiveInt

from evals.task import Measure, Task, TaskData
from workbench.core.protocol import HookedModel
from workbench.core.spec import Spec
from workbench.data.images import DIGITS, ImageRows, digits


class DigitsSpec(Spec):
    """Which images are held out (``split_seed``), and how often each of the others is shown moved by up to ``shift`` pixels."""

    split_seed: int = 0
    copies: PositiveInt = 8
    shift: int = Field(1, ge=0, le=3)


def make(spec: DigitsSpec, rows: int) -> TaskData:
    """Training rows with moved copies; the held-out images are seen once each, unmoved."""
    found = digits(spec.split_seed, copies=spec.copies, shift=spec.shift)
    shape = {"height": 8, "width": 8, "channels": 1, "n_classes": len(DIGITS), "class_names": DIGITS}
    return TaskData(found["train"], found["test"], shape, held_out=found["test"])


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The share of held-out images whose likeliest class is theirs."""
    rows: ImageRows = data.held_out
    batch = rows.batch(range(len(rows)))
    logits = model.run(batch).logits
    assert logits is not None
    assert batch.targets is not None
    right = int((logits.argmax(-1) == batch.targets).sum())
    return [Measure.share("accuracy", right, len(rows), "held-out images")]


TASK = Task("digits", "vit", DigitsSpec, make, score, must={"accuracy": 0.978})
