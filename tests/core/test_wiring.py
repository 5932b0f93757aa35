"""A circuit drawn: every edge has its ends where its parts stand, and a name that is no part is refused."""

from __future__ import annotations

import pandas as pd
import pytest

from workbench.core.charts.wiring import place_of, wiring
from workbench.core.errors import BadValue

EDGES = pd.DataFrame(
    [("embed", "L0H1.q", 0.5), ("L0H1", "L0MLP", 0.25), ("L0MLP", "L1H0.v", -1.0), ("L1H0", "logits", 0.125), ("embed", "L1G0.k", 0.1)],
    columns=pd.Index(["writer", "reader", "score"]),
)


def test_parts_stand_in_the_order_in_which_they_run() -> None:
    heights = [place_of(name)[1] for name in ("embed", "L0H0.q", "L0MLP", "L1H1", "L1MLP", "logits")]
    assert heights == sorted(heights)
    assert place_of("L3H2.k") == ("L3H2", 7.0, 2.0, "k")


def test_every_edge_ends_at_its_parts_and_is_told() -> None:
    drawn = wiring(EDGES, "writer", "reader", "score", titles={"title": "A circuit"}).to_dict()
    rules, boxes = (drawn["datasets"][layer["data"]["name"]] for layer in drawn["layer"][:2])
    at = {row["part"]: (row["x"], row["y"]) for row in boxes}
    assert set(at) == {"embed", "L0H1", "L0MLP", "L1H0", "L1G0", "logits"}
    for row, (writer, reader) in zip(rules, zip(EDGES["writer"], EDGES["reader"], strict=True), strict=True):
        assert (row["x"], row["y"]) == at[writer]
        assert (row["x2"], row["y2"]) == at[reader.partition(".")[0]]
        assert row["y2"] > row["y"]
    assert [row["into"] for row in rules] == ["a query", "an MLP or the logits", "a value", "an MLP or the logits", "a key"]
    assert max(row["wide"] for row in rules) == rules[2]["wide"], "the strongest is the widest, whatever its sign"
    assert "L0MLP → L1H0.v: −1" in drawn["description"]


@pytest.mark.parametrize("name", ["", "L0", "H1", "L0H1.z", "l0h1"])
def test_a_name_that_is_no_part_is_refused(name: str) -> None:
    with pytest.raises(BadValue, match="L0H1"):
        place_of(name)
