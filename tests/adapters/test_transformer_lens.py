"""TransformerLens's models as ours and ours as its: the same numbers on both sides, hooks gone whatever happens, refusals by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.adapters.parity import shaken, taken_in
from workbench.adapters import bridge_sites
from workbench.adapters import transformer_lens as tl
from workbench.core.batch import EncoderBatch, ImageBatch, SequenceBatch, TokenBatch
from workbench.core.errors import BadValue, CorruptFile, EmptySelection, Incompatible, MissingFile, UnknownName
from workbench.core.measure import Loglikelihood
from workbench.core.protocol import Add, Apply, Edit, FromTrace, Replace, Resume, Trace, Zero
from workbench.core.tolerance import agree, gap, tolerance
from workbench.data.text import CharTokenizer
from workbench.engine.score import loglikelihoods
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab.refs import load as load_ref

transformers = pytest.importorskip("transformers")
lens = pytest.importorskip("transformer_lens")

from transformer_lens import head_detector  # noqa: E402  # after the skip
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module  # noqa: E402  # after the skip

patching: Any = lens.patching
SMALL = {"hidden_size": 24, "num_attention_heads": 4, "vocab_size": 31, "intermediate_size": 40, "num_hidden_layers": 2}
ENDS = {"bos_token_id": None, "eos_token_id": None}


def gpt2(dtype: torch.dtype = torch.float32) -> Any:
    config = transformers.GPT2Config(n_layer=2, n_embd=24, n_head=4, vocab_size=31, n_positions=16, **ENDS, attn_implementation="eager")
    return published(transformers.GPT2LMHeadModel, config, dtype)


def llama(dtype: torch.dtype = torch.float32) -> Any:
    config = transformers.LlamaConfig(
        **SMALL, **ENDS, num_key_value_heads=2, head_dim=8, max_position_embeddings=32, attn_implementation="eager"
    )
    return published(transformers.LlamaForCausalLM, config, dtype)


def neox() -> Any:
    config = transformers.GPTNeoXConfig(**SMALL, **ENDS, max_position_embeddings=32, attn_implementation="eager")
    return published(transformers.GPTNeoXForCausalLM, config)


def opt() -> Any:
    small = {**SMALL, "ffn_dim": 40}
    small.pop("intermediate_size")
    config = transformers.OPTConfig(**small, max_position_embeddings=32, word_embed_proj_dim=24, attn_implementation="eager")
    return published(transformers.OPTForCausalLM, config)


def bert() -> Any:
    config = transformers.BertConfig(**SMALL, max_position_embeddings=32, attn_implementation="eager")
    return published(transformers.BertForMaskedLM, config)


def t5() -> Any:
    config = transformers.T5Config(
        num_layers=2, d_model=24, num_heads=4, d_kv=6, vocab_size=31, d_ff=40, decoder_start_token_id=0, attn_implementation="eager"
    )
    return published(transformers.T5ForConditionalGeneration, config)


def vit() -> Any:
    small = {name: value for name, value in SMALL.items() if name != "vocab_size"}
    config = transformers.ViTConfig(**small, image_size=16, patch_size=8, attn_implementation="eager")
    return published(transformers.ViTForImageClassification, config)


def mamba() -> Any:
    return published(
        transformers.MambaForCausalLM, transformers.MambaConfig(num_hidden_layers=2, hidden_size=24, vocab_size=31, state_size=4)
    )


def published(kind: Any, config: Any, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return shaken(kind(config).to(dtype))


def bridge_of(model: Any) -> Any:
    return build_bridge_from_module(model, type(model).__name__, hf_config=model.config)


def tokens(rows: int = 3, length: int = 7, seed: int = 1, most: int = 31) -> Tensor:
    return torch.randint(0, most, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits(trace: Trace) -> Tensor:
    assert trace.logits is not None
    return trace.logits


def left_behind(bridge: Any) -> int:
    """Hooks on any module of the bridge, and switches that are on."""
    hooks = sum(len(module._forward_hooks) for module in bridge.modules() if type(module).__name__ == "HookPoint")
    return hooks + sum(bool(getattr(bridge.cfg, name, False)) for name in ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in"))


def noise(model: Any, name: str, like: Tensor, seed: int = 3) -> Tensor:
    return 0.5 * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like.dtype)


# --- theirs as ours -----------------------------------------------------------------------------------------


SLOW = pytest.mark.slow  # together more than the seconds of a fast run


@pytest.fixture(params=["gpt2-float32", pytest.param("gpt2-float64", marks=SLOW), pytest.param("llama-float32", marks=SLOW)])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any, torch.dtype]:
    """(bridge as ours, ours imported from the same weights, dtype). Llama's published norms round to float32, so float64 is GPT-2's."""
    kind, _, name = request.param.partition("-")
    dtype = getattr(torch, name)
    theirs = {"gpt2": gpt2, "llama": llama}[kind](dtype)
    ours = taken_in(theirs, tmp_path / "theirs")
    return tl.load(bridge_of(theirs)), ours, dtype


def test_every_site_says_what_it_says_in_ours(both: tuple[Any, Any, torch.dtype]) -> None:
    bridged, ours, dtype = both
    missing = set(ours.sites()) - set(bridged.sites())
    assert missing == set()
    assert list(bridged.sites()) == [name for name in ours.sites() if name in bridged.sites()]
    assert bridged.sites().additive
    ids = tokens()
    found, expected = bridged.run(ids, capture="*"), ours.run(ids, capture="*")
    assert list(found.at) == list(bridged.sites())
    for name, site in bridged.sites().items():
        assert site == ours.sites()[name]
        value = found[name]
        if name.endswith("hook_attn_scores"):  # what may not be attended to is the lowest number there, minus infinity here
            value = value.masked_fill(value < -1e30, -torch.inf)
        bound = tolerance(dtype, "attention" if name.endswith("hook_pattern") else "activation").bound
        assert gap(value, expected[name]) <= bound, name
    assert agree(logits(found), logits(expected), "logits")
    assert left_behind(bridged.bridge) == 0


def test_an_edit_at_every_site_does_what_it_does_in_ours(both: tuple[Any, Any, torch.dtype]) -> None:
    bridged, ours, dtype = both
    ids = tokens()
    plain = ours.run(ids, capture="*")
    for name in bridged.sites():
        value = noise(ours, name, plain[name])
        edit: list[Edit] = [Add(name, value=value)]
        if name.endswith("hook_attn_scores"):
            edit = [Apply(name, fn=lambda old, site, more=value: torch.where(old < -1e30, old, old + more))]
        if name.endswith(("hook_scale", "hook_pattern")):
            edit = [Apply(name, fn=lambda old, site, more=value: old * (1 + more.abs()))]
        found, expected = logits(bridged.run(ids, edit=edit)), logits(ours.run(ids, edit=edit))
        assert gap(found, expected) <= 2 * tolerance(dtype, "logits").bound, name
        assert not agree(expected, logits(plain), "logits"), name
    assert left_behind(bridged.bridge) == 0


def test_gradients_are_those_of_ours(both: tuple[Any, Any, torch.dtype]) -> None:
    bridged, ours, _ = both
    ids, seen = tokens(), {}
    for model in (bridged, ours):
        names = [name for name in bridged.sites() if not name.endswith(("_input", "hook_attn_in", "hook_scale", "hook_attn_scores"))]
        for group in (names, ["blocks.1.hook_attn_in", "blocks.0.hook_k_input", "blocks.1.hook_q_input"]):
            trace = model.run(ids, capture=group, grad=True)
            gradients = torch.autograd.grad(logits(trace)[:, -1].square().sum(), [trace[name] for name in group])
            for name, gradient in zip(group, gradients, strict=True):
                seen.setdefault(name, []).append(gradient)
    for name, (found, expected) in seen.items():
        assert agree(found, expected, "gradient"), name


def test_edits_in_parts_from_traces_and_together(both: tuple[Any, Any, torch.dtype]) -> None:
    bridged, ours, dtype = both
    clean, other = tokens(seed=1), tokens(seed=2)
    sites = ["blocks.0.hook_resid_mid", "blocks.0.hook_mlp_in", "blocks.1.attn.hook_z", "blocks.0.attn.hook_k", "blocks.1.hook_attn_in"]
    results = []
    for model in (bridged, ours):
        source = model.run(clean, capture=sites)
        edits: list[Edit] = [
            FromTrace(sites[0], trace=source, at={"pos": [1, 3]}), FromTrace(sites[1], trace=source, at={"pos": 2}),
            Zero(sites[2], at={"head": 1}), FromTrace(sites[3], trace=source), FromTrace(sites[4], trace=source, at={"batch": 0}),
        ]  # fmt: skip
        results.append(
            model.run(other, edit=edits, capture=["blocks.0.hook_resid_mid", "blocks.0.hook_resid_post", "blocks.0.hook_mlp_in"])
        )
    found, expected = results
    assert gap(logits(found), logits(expected)) <= 2 * tolerance(dtype, "logits").bound
    for name in found.at:
        assert agree(found[name], expected[name], "activation"), name
    post, mid = found["blocks.0.hook_resid_post"], found["blocks.0.hook_resid_mid"]
    out = bridged.run(other, edit=[Replace("blocks.0.hook_mlp_in", value=found["blocks.0.hook_mlp_in"])], capture="blocks.0.hook_mlp_out")
    assert gap(post, mid + out["blocks.0.hook_mlp_out"]) <= 4 * tolerance(dtype, "activation").bound  # the stream carried the edit on


def test_logits_at_positions_weights_and_identity(both: tuple[Any, Any, torch.dtype]) -> None:
    bridged, ours, _ = both
    ids = tokens()
    for asked in ("last", [0, -1], torch.tensor([[0], [3], [6]])):
        assert agree(logits(bridged.run(ids, logits=asked)), logits(ours.run(ids, logits=asked)), "logits")
    assert bridged.run(ids, logits=None).logits is None
    assert agree(logits(bridged.run(TokenBatch(ids, ids))), logits(ours.run(ids)), "logits")
    for name in ("W_E", "W_U", "blocks.0.attn.W_Q", "blocks.1.attn.W_K", "blocks.0.attn.W_O", "blocks.1.mlp.W_in", "blocks.0.mlp.W_out"):
        assert torch.equal(bridged.weight(name), ours.weight(name)), name
    with pytest.raises(UnknownName, match="no weight 'blocks.9.attn.W_Q'"):
        bridged.weight("blocks.9.attn.W_Q")
    assert bridged.abilities == {"logits", "logprobs", "generate", "edit", "grad", "weights"}
    before = bridged.digest()
    next(bridged.bridge.parameters()).data[0, 0] += 1
    assert bridged.digest() != before


def test_text_is_read_and_scored_as_by_ours(tmp_path: Path) -> None:
    theirs = gpt2()
    tokenizer = CharTokenizer.of("abcdefgh ")
    ours = taken_in(theirs, tmp_path / "x")
    bridged = tl.load(bridge_of(theirs), tokenizer)
    ours.tokenizer = tokenizer
    assert agree(logits(bridged.run(["ab c", "bad "])), logits(ours.run(["ab c", "bad "])), "logits")
    requests = [Loglikelihood("ab", ("cd", " hg", "c")), Loglikelihood("h", ("e",))]
    found, expected = (dict(loglikelihoods(model, requests)) for model in (bridged, ours))
    for number in range(2):
        for one, two in zip(found[number], expected[number], strict=True):
            assert (torch.tensor(one) - torch.tensor(two)).abs().max() <= tolerance(torch.float32, "loglik").bound
    with pytest.raises(BadValue, match="tokenizer's size is 40"):
        tl.load(bridged.bridge, CharTokenizer("".join(chr(100 + i) for i in range(40))))


# --- other architectures ------------------------------------------------------------------------------------


def test_a_parallel_layer_has_no_middle() -> None:
    theirs = neox()
    ids = tokens()
    with torch.no_grad():
        expected = theirs(ids, output_hidden_states=True, output_attentions=True)
    bridged = tl.load(bridge_of(theirs))
    assert not [name for name in bridged.sites() if name.endswith("resid_mid")]
    assert bridged.sites().additive
    trace = bridged.run(ids, capture="*")
    assert agree(logits(trace), expected.logits, "logits")
    for i in range(2):
        assert agree(trace[f"blocks.{i}.hook_resid_pre"], expected.hidden_states[i], "activation")
        assert agree(trace[f"blocks.{i}.attn.hook_pattern"], expected.attentions[i], "attention")
        total = trace[f"blocks.{i}.hook_resid_pre"] + trace[f"blocks.{i}.hook_attn_out"] + trace[f"blocks.{i}.hook_mlp_out"]
        assert gap(total, trace[f"blocks.{i}.hook_resid_post"]) <= 4 * tolerance(torch.float32, "activation").bound


def test_what_can_be_read_but_not_edited_says_so() -> None:
    theirs = opt()
    ids = tokens()
    with torch.no_grad():
        expected = theirs(ids, output_attentions=True)
    bridged = tl.load(bridge_of(theirs))
    name = "blocks.0.attn.hook_pattern"
    trace = bridged.run(ids, capture=name)
    assert agree(trace[name], expected.attentions[0], "attention")
    asks: list[dict[str, Any]] = [{"edit": [Zero(name)]}, {"capture": name, "grad": True}]
    for ask in asks:
        with pytest.raises(Incompatible, match=f"'{name}' can be read, but the bridge goes on with numbers of its own"):
            bridged.run(ids, **ask)
    assert "blocks.0.ln2.hook_scale" not in bridged.sites()  # there the positions of all rows are one axis


def test_an_encoder_is_no_decoder() -> None:
    theirs = bert()
    ids = tokens()
    mask = torch.arange(7) < torch.tensor([[7], [5], [4]])
    types = (torch.arange(7) > 3).long().expand(3, 7)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long(), token_type_ids=types, output_hidden_states=True, output_attentions=True)
    bridged = tl.load(bridge_of(theirs))
    assert bridged.abilities == {"logits", "edit", "grad", "weights"}
    assert bridged.both_ways
    assert agree(logits(bridged.run(bridged.padded(ids, mask))), logits(bridged.run(EncoderBatch(ids, mask=mask))), "logits")
    assert not bridged.sites().additive
    assert "blocks.0.hook_resid_mid" not in bridged.sites()  # the name leads to the sum before the norm
    trace = bridged.run(EncoderBatch(ids, mask=mask, types=types), capture=["blocks.1.hook_resid_pre", "blocks.1.attn.hook_pattern"])
    assert agree(logits(trace), expected.logits, "logits")
    assert agree(trace["blocks.1.hook_resid_pre"], expected.hidden_states[1], "activation")
    assert agree(trace["blocks.1.attn.hook_pattern"], expected.attentions[1], "attention")


def test_an_encoder_decoder_has_two_stacks() -> None:
    theirs = t5()
    source, ids = tokens(3, 7), tokens(3, 5, seed=2)
    mask = torch.arange(7) < torch.tensor([[7], [5], [4]])
    with torch.no_grad():
        expected = theirs(
            input_ids=source, attention_mask=mask.long(), decoder_input_ids=ids, output_hidden_states=True, output_attentions=True
        )
    bridged = tl.load(bridge_of(theirs))
    assert "generate" not in bridged.abilities
    trace = bridged.run(SequenceBatch(source, ids, mask=mask), capture="*", logits="all")
    assert agree(logits(trace), expected.logits, "logits")
    for i in range(2):
        assert agree(trace[f"encoder.blocks.{i}.hook_resid_pre"], expected.encoder_hidden_states[i], "activation")
        assert agree(trace[f"decoder.blocks.{i}.hook_resid_pre"], expected.decoder_hidden_states[i], "activation")
        assert agree(trace[f"decoder.blocks.{i}.cross_attn.hook_pattern"], expected.cross_attentions[i], "attention")
    shapes = {word: set() for word in ("pos", "key")}
    for name, site in trace.sites.items():
        for word, size in zip(site.axes, trace[name].shape, strict=True):
            if word in shapes and name.startswith("decoder.blocks"):
                shapes[word].add((size, ".cross_attn." in name))
    assert (7, True) in shapes["key"]
    assert (5, False) in shapes["key"]
    with pytest.raises(BadValue, match="a SequenceBatch whose source are token ids"):
        bridged.run(source)


def test_a_vision_model_and_one_without_attention() -> None:
    seeing = tl.load(bridge_of(vit()))
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    trace = seeing.run(ImageBatch(pixels), capture="blocks.*.hook_resid_post")
    assert trace["blocks.1.hook_resid_post"].shape == (2, 5, 24)
    assert torch.equal(logits(trace), logits(seeing.run(pixels)))
    with pytest.raises(BadValue, match="one answer a row"):
        seeing.run(pixels, logits="last")
    with pytest.raises(BadValue, match="pixels"):
        seeing.run(tokens())
    recurrent = tl.load(bridge_of(mamba()))
    assert not recurrent.sites().additive
    assert {"logits", "generate"} <= recurrent.abilities
    ids = tokens()
    changed = recurrent.run(ids, edit=[Zero("blocks.1.hook_resid_pre", at={"pos": 2})], capture="blocks.1.hook_resid_pre")
    assert not changed["blocks.1.hook_resid_pre"][:, 2].any()
    assert not agree(logits(changed), logits(recurrent.run(ids)), "logits")


def test_a_name_that_leads_elsewhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = bridge_of(gpt2())
    plain = type(bridge).hook_dict.fget
    for name, other, gone in (
        ("blocks.0.hook_attn_out", "blocks.0.ln1.hook_out", "additive"),
        ("blocks.1.mlp.hook_post", "blocks.1.mlp.hook_out", "blocks.1.mlp.hook_post"),
        ("blocks.0.attn.hook_attn_scores", "blocks.0.attn.hook_pattern", "blocks.0.attn.hook_attn_scores"),
        ("pos_embed.hook_out", "pos_embed.hook_in", "hook_pos_embed"),
    ):
        monkeypatch.setattr(type(bridge), "hook_dict", property(lambda self, n=name, o=other: {**plain(self), n: plain(self)[o]}))
        table = tl.load(bridge).sites()
        assert not table.additive if gone == "additive" else gone not in table, name
    monkeypatch.undo()
    assert tl.load(bridge).sites().additive


def test_a_middle_whose_edits_miss_the_stream_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge's own point for it is what the second norm reads: taken as it is, an edit there would change the MLP's input alone."""
    whole = bridge_sites._middle
    monkeypatch.setattr(bridge_sites, "_middle", lambda *asked: ((n, axes, at[:1], "plain") for n, axes, at, _ in whole(*asked)))
    table = tl.load(bridge_of(gpt2())).sites()
    assert not [name for name in table if name.endswith("resid_mid")]
    assert "blocks.0.hook_resid_post" in table


# --- hooks --------------------------------------------------------------------------------------------------


def test_a_crash_inside_a_run_leaves_nothing_behind() -> None:
    bridge = bridge_of(gpt2())
    bridged = tl.load(bridge)
    ids = tokens()
    plain = logits(bridged.run(ids))
    kept: list[str] = []
    bridge.add_hook("blocks.0.hook_resid_post", lambda tensor, hook: kept.append(hook.name))

    def crash(old: Tensor, site: Any) -> Tensor:
        raise ZeroDivisionError("on purpose")

    for name in ("blocks.1.attn.hook_pattern", "blocks.0.hook_q_input", "blocks.1.hook_resid_mid", "blocks.0.attn.hook_result"):
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            bridged.run(ids, capture=["blocks.0.attn.hook_z", "blocks.0.hook_mlp_in"], edit=[Apply(name, fn=crash)])
        assert left_behind(bridge) == 1  # the user's own
    kept.clear()
    assert torch.equal(logits(bridged.run(ids)), plain)
    assert kept == ["blocks.0.hook_out"]
    bridge.reset_hooks()
    with pytest.raises(BadValue, match="shape"):
        bridged.run(ids, edit=[Replace("blocks.0.hook_resid_post", value=torch.zeros(5, 5, 5))])
    assert left_behind(bridge) == 0


def test_two_threads_do_not_hear_each_other() -> None:
    bridged = tl.load(bridge_of(gpt2()))
    ids = tokens()
    names = ["blocks.0.hook_resid_post", "blocks.1.attn.hook_z"]
    expected = [bridged.run(ids, capture=names, edit=[Zero("blocks.0.hook_attn_out", at={"pos": row})]) for row in range(2)]
    wrong: list[str] = []

    def work(row: int) -> None:
        for _ in range(12):
            trace = bridged.run(ids, capture=names, edit=[Zero("blocks.0.hook_attn_out", at={"pos": row})])
            if not all(torch.equal(trace[name], expected[row][name]) for name in names) or not torch.equal(
                logits(trace), logits(expected[row])
            ):
                wrong.append(f"thread {row}")

    threads = [threading.Thread(target=work, args=(row,)) for row in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert left_behind(bridged.bridge) == 0


def test_a_run_inside_a_run_is_refused_and_the_next_one_goes() -> None:
    bridged = tl.load(bridge_of(gpt2()))
    ids = tokens()

    def again(old: Tensor, site: Any) -> Tensor:
        bridged.run(ids)
        return old

    with pytest.raises(BadValue, match="begun inside another"):
        bridged.run(ids, edit=[Apply("hook_embed", fn=again)])
    assert logits(bridged.run(ids)).shape == (3, 7, 31)


def test_sites_that_do_not_fire_together() -> None:
    bridged = tl.load(bridge_of(gpt2()))
    ids = tokens()
    names = ["blocks.0.hook_q_input", "blocks.0.ln1.hook_scale"]
    trace = bridged.run(ids, capture=names)  # two passes
    for name in names:
        assert torch.equal(trace[name], bridged.run(ids, capture=name)[name])
    asks: list[dict[str, Any]] = [
        {"capture": names, "grad": True}, {"capture": names[0], "edit": [Zero(names[1])]}, {"edit": [Zero(one) for one in names]},
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(Incompatible, match="do not fire in one pass of a bridge"):
            bridged.run(ids, **ask)


# --- loading ------------------------------------------------------------------------------------------------


def test_a_folder_is_opened_through_a_reference(tmp_path: Path) -> None:
    theirs = llama()
    theirs.save_pretrained(tmp_path / "llama")
    ids = tokens()
    with torch.no_grad():
        expected = theirs(ids).logits
    model: Any = load_ref(f"tl:{tmp_path / 'llama'}")
    assert agree(logits(model.run(ids)), expected, "logits")
    assert model.family == "transformer_lens"
    assert model.config.architecture == "LlamaForCausalLM"
    assert model.tokenizer is None
    assert model.digest() == tl.load(tmp_path / "llama").digest()


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"No published model at 'nobody/nothing'.*Hugging Face cache"):
        load_ref("tl:nobody/nothing")
    with pytest.raises(BadValue, match="a folder, a name, or a TransformerBridge"):
        tl.load(gpt2())
    with pytest.raises(MissingFile, match="config of a published model"):
        tl.load(tmp_path)
    gpt2().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(MissingFile, match="'pytorch_model.bin' is a pickle"):
        tl.load(tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "pytorch_model.bin")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptFile, match=r"'transformer\.h\.1\.mlp\.c_fc\.weight' is missing"):
        tl.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(CorruptFile, match="a published model"):
        tl.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(Incompatible, match="Could not determine supported architecture"):
        tl.load(tmp_path)


def test_what_a_bridge_cannot_do_is_refused() -> None:
    bridged = tl.load(bridge_of(gpt2()))
    ids = tokens()
    asks: list[dict[str, Any]] = [{"cache": True}, {"resume": Resume(stop="blocks.0.hook_resid_post")}]
    for ask in asks:
        with pytest.raises(BadValue, match="left out for a transformer_lens model"):
            bridged.run(ids, **ask)
    with pytest.raises(EmptySelection, match="matches no site"):
        bridged.run(ids, capture="blocks.0.attn.hook_patern")
    with pytest.raises(BadValue, match="segments or positions"):
        bridged.run(TokenBatch(ids, ids, segments=ids))
    with pytest.raises(BadValue, match="no tokenizer"):
        bridged.run("text")
    with pytest.raises(BadValue, match="a token id is 31"):
        bridged.run(ids + 1000 * 0 + 31 - ids)
    with pytest.raises(BadValue, match="at most 16"):
        bridged.run(tokens(1, 17))


# --- ours as theirs -----------------------------------------------------------------------------------------


SHAPES: dict[str, dict[str, Any]] = {
    "grouped": {"n_kv_heads": 2},
    "plain": {"positions": "learned", "tied": False},
    "rms": {"norm": "rms", "act": "swiglu", "bias": False},
}


def made(name: str) -> GPT:
    """A small model of ours, such as ``plain-float64``."""
    kind, _, dtype = name.partition("-")
    config = GPTConfig(n_layers=2, d_model=16, n_heads=4, d_vocab=23, n_ctx=16, **SHAPES[kind])
    return shaken(GPT(config, seed=1).to(getattr(torch, dtype)))


@pytest.fixture(params=["plain-float64", pytest.param("grouped-float32", marks=SLOW), pytest.param("rms-float32", marks=SLOW)])
def ours(request: pytest.FixtureRequest) -> GPT:
    return made(request.param)


@contextmanager
def default_of(model: GPT) -> Iterator[None]:
    """Their sweeps keep results in torch's default dtype: the model's, while this lasts."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(model.embed.token.weight.dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def metric(out: Tensor) -> Tensor:
    return (out[:, -1, 3] - out[:, -1, 5]).mean()


SWEEPS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "resid_pre": (patching.get_act_patch_resid_pre, "hook_resid_pre", ("pos",)),
    "resid_mid": (patching.get_act_patch_resid_mid, "hook_resid_mid", ("pos",)),
    "attn_out": (patching.get_act_patch_attn_out, "hook_attn_out", ("pos",)),
    "mlp_out": (patching.get_act_patch_mlp_out, "hook_mlp_out", ("pos",)),
    "out_by_pos": (patching.get_act_patch_attn_head_out_by_pos, "attn.hook_z", ("pos", "head")),
    "q_by_pos": (patching.get_act_patch_attn_head_q_by_pos, "attn.hook_q", ("pos", "head")),
    "k_by_pos": (patching.get_act_patch_attn_head_k_by_pos, "attn.hook_k", ("pos", "kv_head")),
    "v_by_pos": (patching.get_act_patch_attn_head_v_by_pos, "attn.hook_v", ("pos", "kv_head")),
    "pattern_by_pos": (patching.get_act_patch_attn_head_pattern_by_pos, "attn.hook_pattern", ("head", "query")),
    "pattern_dest_src": (patching.get_act_patch_attn_head_pattern_dest_src_pos, "attn.hook_pattern", ("head", "query", "key")),
    "out": (patching.get_act_patch_attn_head_out_all_pos, "attn.hook_z", ("head",)),
    "q": (patching.get_act_patch_attn_head_q_all_pos, "attn.hook_q", ("head",)),
    "k": (patching.get_act_patch_attn_head_k_all_pos, "attn.hook_k", ("kv_head",)),
    "v": (patching.get_act_patch_attn_head_v_all_pos, "attn.hook_v", ("kv_head",)),
    "pattern": (patching.get_act_patch_attn_head_pattern_all_pos, "attn.hook_pattern", ("head",)),
}


def by_hand(model: GPT, corrupted: Tensor, source: Trace, site: str, axes: tuple[str, ...]) -> Tensor:
    """The same sweep by our own edits: one run a cell."""
    shape = [model.sites()[f"blocks.0.{site}"].axis(word) for word in axes]
    sizes = [source[f"blocks.0.{site}"].shape[axis] for axis in shape]
    out = torch.zeros(2, *sizes, dtype=model.embed.token.weight.dtype)
    for layer in range(2):
        for cell in torch.cartesian_prod(*[torch.arange(size) for size in sizes]).reshape(-1, len(sizes)).tolist():
            edit = FromTrace(f"blocks.{layer}.{site}", trace=source, at=dict(zip(axes, cell, strict=True)))
            out[(layer, *cell)] = metric(logits(model.run(corrupted, edit=[edit])))
    return out


FAST = ("resid_pre", "q", "k_by_pos", "pattern")


@pytest.mark.parametrize("sweep", [sweep if sweep in FAST else pytest.param(sweep, marks=SLOW) for sweep in SWEEPS])
@pytest.mark.parametrize("name", ["grouped-float32", pytest.param("plain-float64", marks=SLOW)])
def test_each_patching_sweep_is_our_own_edits(name: str, sweep: str) -> None:
    function, site, axes = SWEEPS[sweep]
    ours = made(name)
    model = tl.present(ours)
    length = 5 - len(axes)
    clean, corrupted = tokens(2, length, 1, 23), tokens(2, length, 2, 23)
    with torch.no_grad(), default_of(ours):
        _, cache = model.run_with_cache(clean)
        found = function(model, corrupted, cache, metric)
    expected = by_hand(ours, corrupted, ours.run(clean, capture=f"blocks.*.{site}"), site, axes)
    assert found.dtype == expected.dtype
    assert agree(found, expected, "logits")
    assert not agree(found, torch.full_like(found, float(metric(logits(ours.run(corrupted))))), "logits")


def test_the_sweeps_over_everything_and_their_statistics() -> None:
    ours = made("grouped-float32")
    model = tl.present(ours)
    clean, corrupted = tokens(2, 4, 1, 23), tokens(2, 4, 2, 23)
    with torch.no_grad():
        _, cache = model.run_with_cache(clean)
        heads = patching.get_act_patch_attn_head_all_pos_every(model, corrupted, cache, metric)
        blocks = patching.get_act_patch_block_every(model, corrupted, cache, metric)
        by_row = lambda out: out[:, -1, 3] - out[:, -1, 5]  # noqa: E731  # their per-example metric
        each = patching.get_act_patch_resid_pre(model, corrupted, cache, by_row, reduce="none", baseline=True)
    assert heads.shape == (5, 2, 4)
    assert blocks.shape == (3, 2, 4)
    assert agree(each.mean(), blocks[0], "logits")
    assert agree(each.baseline.mean(), metric(logits(ours.run(corrupted))), "logits")


@pytest.mark.parametrize("name", ["plain-float32", "plain-float64"])
def test_direct_paths_are_our_own_edits(name: str) -> None:
    ours = made(name)
    model = tl.present(ours)
    clean, corrupted = tokens(2, 4, 1, 23), tokens(2, 4, 2, 23)
    results = [ours.run(ids, capture="blocks.0.attn.hook_result")["blocks.0.attn.hook_result"] for ids in (clean, corrupted)]
    delta = (results[0] - results[1])[:, :, 1:2]
    with torch.no_grad(), default_of(ours):
        caches = [model.run_with_cache(ids)[1] for ids in (clean, corrupted)]
        for word in "qkv":
            found = patching.get_act_patch_direct_path(model, corrupted, *caches, metric, 0, 1, word, verbose=False)
            for head in range(4):
                edit = Add(f"blocks.1.hook_{word}_input", value=delta, at={"head" if word == "q" else "kv_head": head})
                assert agree(found[1, head], metric(logits(ours.run(corrupted, edit=[edit]))), "logits")
    assert not model.cfg.use_split_qkv_input


def test_the_cache_holds_our_sites_and_takes_them_apart(ours: GPT) -> None:
    model = tl.present(ours)
    ids = tokens(2, 5, 1, 23)
    with torch.no_grad():
        out, cache = model.run_with_cache(ids)
    trace = ours.run(ids, capture="*")
    assert agree(out, logits(trace), "logits")
    assert set(cache.keys()) == set(ours.sites())
    assert all(torch.equal(cache[name], trace[name]) for name in trace.at)
    assert torch.equal(cache["resid_post", -1], trace["blocks.1.hook_resid_post"])
    final = trace["blocks.1.hook_resid_post"]

    accumulated, labels = cache.accumulated_resid(return_labels=True, incl_mid=True)
    assert labels == ["0_pre", "0_mid", "1_pre", "1_mid", "final_post"]
    assert torch.equal(accumulated[-1], final)
    assert torch.equal(accumulated[1], trace["blocks.0.hook_resid_mid"])

    parts, labels = cache.decompose_resid(return_labels=True)
    assert len(labels) == len(parts) == 5 + (ours.config.positions == "learned")
    assert agree(parts.sum(0), final, "activation")

    heads, labels = cache.stack_head_results(return_labels=True, incl_remainder=True)
    assert labels[0] == "L0H0"
    assert torch.equal(heads[5], trace["blocks.1.attn.hook_result"][:, :, 1])
    assert agree(heads.sum(0), final, "activation")
    del cache.cache_dict["blocks.0.attn.hook_result"]
    again = cache.stack_head_results()
    assert agree(again, heads[:-1], "activation")  # computed anew from z and W_O

    whole, labels = cache.get_full_resid_decomposition(return_labels=True, expand_neurons=False)
    assert agree(whole.sum(0), final, "activation")
    assert labels[-1] == "bias"

    lens_of_all = cache.accumulated_resid(apply_ln=True)
    assert agree(lens_of_all[-1] @ ours.weight("W_U"), logits(trace), "logits")
    scaled = cache.apply_ln_to_stack(parts)
    centred = parts - parts.mean(-1, keepdim=True) if ours.config.norm == "layer" else parts
    assert agree(scaled, centred / trace["ln_final.hook_scale"], "activation")
    by_token = cache.logit_attrs(parts, ids[:, 0])
    assert agree(by_token, torch.einsum("cbpm,bm->cbp", scaled, ours.weight("W_U").T[ids[:, 0]]), "logits")


def test_the_head_detector_scores_our_patterns(ours: GPT) -> None:
    ours.tokenizer = CharTokenizer.of("abcdefgh ")
    model = tl.present(ours)
    text = "abcabcab"
    with torch.no_grad():
        found = head_detector.detect_head(model, text, "previous_token_head")
        both = head_detector.detect_head(model, [text, "abababab"], "induction_head")
    assert found.dtype == ours.embed.token.weight.dtype
    for layer in range(2):
        pattern = ours.run(model.to_tokens(text), capture=f"blocks.{layer}.attn.hook_pattern")[f"blocks.{layer}.attn.hook_pattern"][0]
        shifted = pattern.diagonal(-1, dim1=-2, dim2=-1).sum(-1) / pattern.sum((-1, -2))
        assert agree(found[layer], shifted.to(found.dtype), "attention", torch.float32)
    assert both.shape == (2, 4)


def test_hooks_change_a_run_as_edits_do(ours: GPT) -> None:
    model = tl.present(ours)
    ids = tokens(2, 5, 1, 23)
    plain = logits(ours.run(ids))
    with torch.no_grad():

        def returned(value: Tensor, hook: Any) -> Tensor:
            assert (hook.name, hook.layer()) == ("blocks.1.attn.hook_z", 1)
            return torch.cat([value[:, :, :1] * 0, value[:, :, 1:]], dim=2)

        def in_place(value: Tensor, hook: Any) -> None:
            value[:, :, 0] = 0

        expected = logits(ours.run(ids, edit=[Zero("blocks.1.attn.hook_z", at={"head": 0})]))
        for hook in (returned, in_place):
            assert torch.equal(model.run_with_hooks(ids, fwd_hooks=[("blocks.1.attn.hook_z", hook)]), expected)
        seen: list[str] = []
        out = model.run_with_hooks(
            ids, fwd_hooks=[(lambda name: name.endswith("hook_mlp_out"), lambda value, hook: seen.append(hook.name))]
        )
        assert agree(out, plain, "logits")
        assert seen == ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]
        with model.hooks(fwd_hooks=[("blocks.0.hook_out", lambda value, hook: value * 2)]):
            doubled = model(ids)
        assert agree(doubled, logits(ours.run(ids, edit=[Apply("blocks.0.hook_resid_post", fn=lambda old, site: old * 2)])), "logits")
        model.add_hook("hook_embed", lambda value, hook: value * 0, is_permanent=True)
        model.reset_hooks()
        assert not agree(model(ids), plain, "logits")
        model.reset_hooks(including_permanent=True)
        assert torch.equal(model(ids), plain)
        with pytest.raises(ZeroDivisionError):
            model.run_with_hooks(ids, fwd_hooks=[("hook_embed", lambda value, hook: 1 / 0)])
        assert torch.equal(model(ids), plain)
    with pytest.raises(EmptySelection, match=r"'blocks\.0\.hook_mpl_out' matches no site.*hook_mlp_out"):
        model.run_with_hooks(ids, fwd_hooks=[("blocks.0.hook_mpl_out", returned)])


def test_losses_gradients_slices_and_backward_hooks(ours: GPT) -> None:
    model = tl.present(ours)
    ids = tokens(2, 5, 1, 23)
    targets = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    total, count = ours.loss(TokenBatch(ids, targets))
    loss = model(ids, return_type="loss")
    assert agree(loss, total / count, "logits")
    value, cache = model.run_with_cache(ids, "blocks.0.hook_resid_post", return_type="loss", incl_bwd=True)
    trace = ours.run(ids, capture="blocks.0.hook_resid_post", grad=True)
    nll = torch.nn.functional.cross_entropy(logits(trace)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    (expected,) = torch.autograd.grad(nll, [trace["blocks.0.hook_resid_post"]])
    assert agree(cache["blocks.0.hook_resid_post_grad"], expected, "gradient")
    assert agree(value, nll, "logits")
    seen: list[Tensor] = []
    with model.hooks(bwd_hooks=[("blocks.0.hook_resid_post", lambda gradient, hook: seen.append(gradient))]):
        model(ids, return_type="loss").backward()
    assert agree(seen[0], expected, "gradient")
    _, sliced = model.run_with_cache(ids, ["blocks.0.attn.hook_pattern", "blocks.0.attn.hook_z"], pos_slice=(1, 3))
    assert [tuple(sliced[name].shape[1:3]) for name in sliced.keys()] == [(4, 2), (2, 4)]  # noqa: SIM118  # a cache is no dict
    _, one = model.run_with_cache(ids[:1], lambda name: "resid" in name, remove_batch_dim=True, return_cache_object=False)
    assert {value.ndim for value in one.values()} == {2}
    for ask, words in (({"remove_batch_dim": True}, "false for a batch of 2 rows"), ({"incl_bwd": True}, "return_type='loss'")):
        with pytest.raises(BadValue, match=words):
            model.run_with_cache(ids, **ask)
    with pytest.raises(BadValue, match="an option of run_with_cache is 'stop_at_layer'"):
        model.run_with_cache(ids, stop_at_layer=1)


def test_a_training_model_is_refused_by_their_check_and_other_families_by_ours() -> None:
    ours, _ = GPT.tiny()
    model = tl.present(ours.train())
    _, cache = model.run_with_cache(tokens(1, 4, 1, 23))
    with pytest.raises(ValueError, match="evaluation"):
        patching.get_act_patch_resid_pre(model, tokens(1, 4, 1, 23), cache, metric)
    with pytest.raises(Incompatible, match="only gpt models"):
        tl.present(tl.load(bridge_of(gpt2())))
