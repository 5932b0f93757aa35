"""Edits are values: each equals the plain indexing it stands for, and leaves its input untouched."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import Add, Apply, Edit, FromTrace, Mean, Replace, Scale, Trace, Zero
from workbench.core.sites import Site

SITE = Site("blocks.0.attn.hook_z", ("batch", "pos", "head", "d_head"))
X = torch.randn(3, 5, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
OTHER = Trace(None, {SITE.name: X.flip(0) + 1})


@given(
    batch=st.sampled_from([None, 1, -1, slice(0, 2), [0, 2]]),
    pos=st.sampled_from([None, 4, slice(1, 3), [0, 1, 4]]),
    head=st.sampled_from([None, 0, [3], [1, 2], torch.tensor([0, 3])]),
)
def test_an_index_is_the_outer_product_of_its_axes(batch: Any, pos: Any, head: Any) -> None:
    at = {name: chosen for name, chosen in (("batch", batch), ("pos", pos), ("head", head)) if chosen is not None}
    expected = X.clone()
    numbers = [
        torch.arange(n)[c if not isinstance(c, int) else slice(c % n, c % n + 1)].tolist() if c is not None else range(n)
        for c, n in ((batch, 3), (pos, 5), (head, 4))
    ]
    for b in numbers[0]:
        for p in numbers[1]:
            for h in numbers[2]:
                expected[b, p, h] = 0
    kept = X.clone()
    assert torch.equal(Zero(SITE.name, at=at).apply(X, SITE), expected)
    assert torch.equal(kept, X)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Replace(SITE, value=torch.ones(2)), torch.ones_like(X)),
        (Add(SITE, value=torch.ones(2)), X + 1),
        (Scale(SITE, factor=-2.0), X * -2),
        (Zero(SITE), torch.zeros_like(X)),
        (Mean(SITE), X.mean(0, keepdim=True).expand_as(X)),
        (Mean(SITE, over=("batch", "pos")), X.mean((0, 1), keepdim=True).expand_as(X)),
        (FromTrace(SITE, trace=OTHER), X.flip(0) + 1),
        (Apply(SITE, fn=lambda v, site: v.square()), X.square()),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Edit) else "",
)
def test_whole_tensor_edits(edit: Edit, expected: torch.Tensor) -> None:
    assert torch.equal(edit.apply(X, SITE), expected)
    part = type(edit)(**{**vars(edit), "at": {"pos": 2, "head": [0, 3]}})
    out, whole = part.apply(X, SITE), X.clone()
    source = edit.apply(X[:, 2:3][:, :, [0, 3]], SITE) if not isinstance(edit, FromTrace) else OTHER[SITE][:, 2:3][:, :, [0, 3]]
    whole[:, 2:3, [0, 3]] = source
    assert torch.equal(out, whole)


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        (Zero(SITE, at={"pos": 5}), BadValue, "axis 'pos' .* 0 to 4"),
        (Zero(SITE, at={"pos": []}), BadValue, "non-empty"),
        (Zero(SITE, at={"layer": 0}), UnknownName, "no axis 'layer'"),
        (FromTrace(SITE, trace=Trace(None, {})), UnknownName, "no captured site"),
        (FromTrace(SITE, trace=Trace(None, {SITE.name: X[:2]})), BadValue, "as in this run"),
        (Apply(SITE, fn=lambda v, site: v[:1]), BadValue, "edit function"),
    ],
)
def test_wrong_edits_raise(edit: Edit, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        edit.apply(X, SITE)
