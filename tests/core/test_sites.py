"""A selection is exact, a glob or a Site; what matches nothing raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import EmptySelection, UnknownName
from workbench.core.sites import Site, SiteTable

NAMES = ["hook_embed", *(f"blocks.{i}.{part}" for i in range(3) for part in ("hook_resid_pre", "attn.hook_pattern")), "ln_final.hook_scale"]
TABLE = SiteTable([Site(n, ("batch", "pos", "d_model")) for n in NAMES], where="a gpt model")


def test_layer_stack_and_tensor() -> None:
    site = Site("decoder.blocks.12.attn.hook_q", ("batch", "pos", "head", "d_head"))
    assert (site.stack, site.layer, site.tensor, site.axis("head")) == ("decoder", 12, "hook_q", 2)
    assert (TABLE["blocks.2.hook_resid_pre"].stack, TABLE["blocks.2.hook_resid_pre"].layer) == ("", 2)
    assert (TABLE["hook_embed"].stack, TABLE["hook_embed"].layer) == ("", None)
    assert (TABLE["ln_final.hook_scale"].stack, Site("encoder.hook_embed", ()).stack) == ("", "encoder")
    with pytest.raises(UnknownName, match="no axis 'heads' at site"):
        site.axis("heads")


def test_selection_keeps_table_order_without_repeats() -> None:
    chosen = TABLE.select(["blocks.*.attn.hook_pattern", TABLE["hook_embed"], "blocks.1.attn.hook_pattern"])
    assert [s.name for s in chosen] == ["hook_embed", *(f"blocks.{i}.attn.hook_pattern" for i in range(3))]


def test_every_member_must_match() -> None:
    with pytest.raises(
        EmptySelection, match=r"'blocks.\*.attn.hook_patern' matches no site of a gpt model. Nearest: 'blocks.\d.attn.hook_pattern'"
    ):
        TABLE.select(["hook_embed", "blocks.*.attn.hook_patern"])
    with pytest.raises(UnknownName, match="no site 'hook_embd' in a gpt model.*'hook_embed'"):
        TABLE["hook_embd"]


@given(st.lists(st.sampled_from(NAMES), unique=True))
def test_exact_names_select_themselves(names: list[str]) -> None:
    assert {s.name for s in TABLE.select(names)} == set(names)
