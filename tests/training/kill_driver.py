"""A training run in a process of its own, to be killed: ``python -m tests.training.kill_driver OUT``. Prints each event, and a digest."""

from __future__ import annotations

import sys

from tests.training.setting import Copying, model, spec
from workbench.training.loop import train

STEPS = 700


def main(out: str) -> None:
    def said(event: str, state: object) -> None:
        print(event, flush=True)

    settings = spec(steps=STEPS, save_every=7, validate_every=40, keep=2)
    history = train(model(), Copying(), settings, out=out, validation=Copying(seed=1), callbacks=[said])
    print(history["weights"], flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
