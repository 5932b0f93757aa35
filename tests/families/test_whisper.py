"""The whisper family: a plain twin, lengths and padding, a past, parts of a run, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.blocks.mel import sinusoids
from workbench.core.batch import IGNORE, SequenceBatch
from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import FromTrace, Resume, Zero
from workbench.core.tolerance import agree, gap
from workbench.families import FAMILIES
from workbench.families.whisper import Whisper, WhisperConfig


def built(dtype: torch.dtype = torch.float64, **changes: Any) -> Whisper:
    """The tiny model with weights large enough that every part of it matters."""
    config = WhisperConfig.parse({**Whisper.tiny()[0].config.model_dump(), **changes})
    model = Whisper(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.to(dtype).eval()


def spoken(
    frames: int = 12, rows: int = 2, tokens: int = 5, mask: Tensor | None = None, dtype: torch.dtype = torch.float64
) -> SequenceBatch:
    generator = torch.Generator().manual_seed(1)
    mel = torch.randn(rows, 5, frames, generator=generator, dtype=torch.float64).to(dtype)
    ids = torch.randint(0, 13, (rows, tokens + 1), generator=generator)
    return SequenceBatch(mel, ids[:, :-1], ids[:, 1:], mask)


PIXELS: dict[str, Any] = {"source": "pixels", "image_size": 4, "patch": 2, "channels": 3, "n_ctx_source": 5, "positions": "learned"}


# --- a plain twin, one row, one head and one query at a time


def normed(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    return (x - mean) / (((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1] + 1e-5).sqrt() * w + b


Weights = dict[str, Tensor]


def attended(weights: Weights, name: str, x: Tensor, source: Tensor, allowed: Any) -> Tensor:
    """What attention ``name`` adds at each position of ``x`` ``[pos, d_model]``; ``allowed(query, key)`` says who sees whom."""
    w = {part: weights[f"{name}.{part}"] for part in ("W_Q", "b_Q", "W_K", "b_K", "W_V", "b_V", "W_O", "b_O")}
    out = torch.zeros_like(x)
    for i in range(len(x)):
        total = w["b_O"].clone()
        for h in range(len(w["W_Q"])):
            q = x[i] @ w["W_Q"][h] + w["b_Q"][h]
            seen = [j for j in range(len(source)) if allowed(i, j)]
            marks = [float(q @ (source[j] @ w["W_K"][h] + w["b_K"][h])) / math.sqrt(len(q)) for j in seen]
            shares = [math.exp(m - max(marks)) for m in marks]
            for share, j in zip(shares, seen, strict=True):
                total = total + share / sum(shares) * (source[j] @ w["W_V"][h] + w["b_V"][h]) @ w["W_O"][h]
        out[i] = total
    return out


def through(weights: Weights, block: str, x: Tensor, own: Any, memory: Tensor | None = None, met: Any = None) -> Tensor:
    w = weights.__getitem__
    norm = lambda x, n: normed(x, w(f"{block}.ln{n}.w"), w(f"{block}.ln{n}.b"))  # noqa: E731
    x = x + attended(weights, f"{block}.attn", norm(x, 1), norm(x, 1), own)
    if memory is not None:
        x = x + attended(weights, f"{block}.cross_attn", norm(x, 2), memory, met)
    inner = norm(x, 2 if memory is None else 3) @ w(f"{block}.mlp.W_in") + w(f"{block}.mlp.b_in")
    return x + 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2))) @ w(f"{block}.mlp.W_out") + w(f"{block}.mlp.b_out")


def convolved(mel: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """``[frame, channel]`` in and out; a frame beyond either end is silent."""
    held = {at: mel[at] for at in range(len(mel))}
    out = []
    for centre in range(0, len(mel), stride):
        taps = [weight[:, :, tap] @ held[centre + tap - 1] for tap in range(3) if centre + tap - 1 in held]
        value = bias + torch.stack(taps).sum(0)
        out.append(0.5 * value * (1 + torch.erf(value / math.sqrt(2))))
    return torch.stack(out)


def twin(model: Whisper, mel: Tensor, ids: Tensor, real: Tensor) -> dict[str, Tensor]:
    """The streams between layers and the logits of one row: mel ``[mel, frame]``, ids ``[pos]``, real ``[source pos]``."""
    weights: Weights = {name: value.detach() for name, value in model.named_weights().items()}
    w, out = weights.__getitem__, {}
    x = convolved(mel.T, w("encoder.W_conv1"), w("encoder.b_conv1"), 1)
    x = convolved(x, w("encoder.W_conv2"), w("encoder.b_conv2"), 2)
    x = x + w("encoder.W_pos")[: len(x)]
    for i in range(model.config.n_layers_encoder):
        out[f"encoder.blocks.{i}.hook_resid_pre"] = x
        x = through(weights, f"encoder.blocks.{i}", x, lambda q, k: bool(real[k]))
    memory = normed(x, w("encoder.ln_final.w"), w("encoder.ln_final.b"))
    x = w("decoder.W_E")[ids] + w("decoder.W_pos")[: len(ids)]
    for i in range(model.config.n_layers_decoder):
        out[f"decoder.blocks.{i}.hook_resid_pre"] = x
        x = through(weights, f"decoder.blocks.{i}", x, lambda q, k: k <= q, memory, lambda q, k: bool(real[k]))
    out["logits"] = normed(x, w("decoder.ln_final.w"), w("decoder.ln_final.b")) @ w("W_U")
    return out


@pytest.mark.parametrize(
    "changes", [{}, {"positions": "learned", "key_bias": True, "tied": False, "n_layers_decoder": 1}], ids=["plain", "other"]
)
@pytest.mark.parametrize("frames", [11, 12])
def test_every_row_equals_the_plain_twin(changes: dict[str, Any], frames: int) -> None:
    model = built(**changes)
    mask = torch.tensor([[True] * 6, [True, True, False, True, False, False]])
    batch = spoken(frames, mask=mask)
    trace = model.run(batch, capture="*.blocks.*.hook_resid_pre")
    assert trace.logits is not None
    for row in range(2):
        expected = twin(model, batch.source[row], batch.tokens[row], mask[row])
        assert agree(trace.logits[row], expected.pop("logits"), "logits")
        assert {name for name, value in expected.items() if not agree(trace[name][row], value, "activation")} == set()


def test_the_twin_comparison_catches_a_mask_that_is_not_heeded() -> None:
    model, mask = built(), torch.tensor([[True] * 6, [True, True, False, True, False, False]])
    batch = spoken()
    logits = model.run(batch).logits
    assert logits is not None
    assert gap(logits[1], twin(model, batch.source[1], batch.tokens[1], mask[1])["logits"]) > 1e-3


def test_it_is_in_the_catalogue_and_its_positions_are_sinusoids_that_are_kept() -> None:
    assert FAMILIES.load("whisper") is Whisper
    model = Whisper.tiny()[0]
    assert torch.equal(model.weight("encoder.W_pos"), sinusoids(6, 16))
    assert "encoder.front.position" in model.state_dict()
    assert "encoder.front.position" not in dict(model.named_parameters())
    assert model.weight("encoder.blocks.0.attn.b_K").abs().max() == 0  # keys have no bias
    assert "encoder.stack.blocks.0.attn.k.bias" not in model.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_row_reads_the_same_alone_and_beside_longer_ones(dtype: torch.dtype) -> None:
    model = built(dtype)
    batch = spoken(dtype=dtype, mask=torch.tensor([[True] * 6, [True] * 3 + [False] * 3]))
    batch.source[1, :, 6:] = 0  # what padded rows hold; zeros are also what the convolutions see beyond the end
    short = replace(batch.rows([1]), source=batch.source[1:, :, :6], mask=None)
    trace, alone = model.run(batch, capture="encoder.ln_final.*"), model.run(short, capture="encoder.ln_final.*")
    assert trace.logits is not None
    assert alone.logits is not None
    assert agree(trace.logits[1:], alone.logits, "logits")
    assert agree(trace["encoder.ln_final.hook_normalized"][1:, :3], alone["encoder.ln_final.hook_normalized"], "activation")


def test_fewer_frames_than_the_context_are_read_and_an_odd_one_counts_as_a_position() -> None:
    model = built()
    for frames, positions in ((1, 1), (2, 1), (7, 4), (11, 6), (12, 6)):
        trace = model.run(spoken(frames), capture=["encoder.hook_embed", "decoder.blocks.0.cross_attn.hook_pattern"])
        assert trace["encoder.hook_embed"].shape == (2, positions, 16)
        assert trace["decoder.blocks.0.cross_attn.hook_pattern"].shape == (2, 4, 5, positions)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_past_and_rest_equal_the_whole_and_the_encoder_does_not_run_again(dtype: torch.dtype, masked: bool) -> None:
    model = built(dtype)
    batch = spoken(dtype=dtype, mask=torch.tensor([[True] * 6, [True] * 4 + [False] * 2]) if masked else None)
    whole = model.run(batch, cache=True)
    assert whole.logits is not None
    for cut in (1, 3):
        past = model.run(replace(batch, tokens=batch.tokens[:, :cut]), cache=True, logits=None).past
        silent = replace(batch, source=torch.full_like(batch.source, float("nan")), tokens=batch.tokens[:, cut:])
        rest = model.run(silent, resume=Resume(past=past), cache=True)  # a source that could not be read is not
        assert rest.logits is not None
        assert agree(rest.logits, whole.logits[:, cut:], "logits")
        assert (rest.past.length, rest.past.memory[0][0].shape[1]) == (5, 6)
    with pytest.raises(BadValue, match="lies before its start"):
        model.run(batch, capture="encoder.hook_embed", resume=Resume(past=past))
    with pytest.raises(BadValue, match="number of tokens is 10, but it must be at most 8"):
        model.run(batch, resume=Resume(past=whole.past))


def test_an_edited_encoder_is_remembered_edited() -> None:
    model, batch = built(), spoken()
    edit = [Zero("encoder.blocks.1.hook_mlp_out", at={"pos": 2})]
    past = model.run(replace(batch, tokens=batch.tokens[:, :2]), cache=True, edit=edit).past
    rest, whole = model.run(replace(batch, tokens=batch.tokens[:, 2:]), resume=Resume(past=past)), model.run(batch, edit=edit)
    assert whole.logits is not None
    assert rest.logits is not None
    assert agree(rest.logits, whole.logits[:, 2:], "logits")


def test_patching_every_site_with_itself_is_exactly_nothing() -> None:
    model, batch = built(), spoken(mask=torch.tensor([[True] * 6, [True] * 4 + [False] * 2]))
    readers = [site for site in model.sites() if site.endswith("_input")]
    loud = [site for site in model.sites() if site.endswith(("hook_attn_scores", "hook_pattern"))]
    quiet = [site for site in model.sites() if site not in readers + loud]
    for group in (readers, loud, quiet):
        trace = model.run(batch, capture=group)
        again = model.run(batch, edit=[FromTrace(site, trace=trace) for site in group])
        assert trace.logits is not None
        assert again.logits is not None
        assert torch.equal(again.logits, trace.logits), group[0]


def test_the_source_alone_is_enough_inside_the_encoder() -> None:
    model, batch = built(), spoken()
    place = "encoder.blocks.1.hook_resid_post"
    full = model.run(batch, capture=place)[place]
    assert agree(model.run(batch.source, capture=place, resume=Resume(stop=place))[place], full, "activation")
    start = "encoder.blocks.0.hook_resid_mid"
    middle = model.run(batch, capture=start)[start]
    part = model.run(None, capture=place, resume=Resume(start=start, residual=middle, stop=place))
    assert agree(part[place], full, "activation")


def test_loss_is_the_mean_over_targets_and_the_front_end_learns() -> None:
    model, batch = built(), spoken()
    targets = batch.targets
    assert targets is not None
    targets = torch.where(torch.arange(5) < torch.tensor([[5], [2]]), targets, IGNORE)
    total, count = model.loss(replace(batch, targets=targets))
    logits = model.run(batch).logits
    assert logits is not None
    rows, places = (targets != IGNORE).nonzero(as_tuple=True)
    assert count == 7 == len(rows)
    assert agree(total, -logits.log_softmax(-1)[rows, places, targets[rows, places]].sum(), "logits")
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_dropout_is_in_training_alone() -> None:
    model, batch = built(dropout=0.5), spoken()
    calm, again = model.loss(batch)[0], model.train().loss(batch)[0]
    assert not torch.equal(calm, again)
    running, resting = model.run(batch).logits, model.eval().run(batch).logits
    assert running is not None
    assert resting is not None
    assert torch.equal(running, resting)


REFUSED: list[tuple[Any, Resume | None, str]] = [
    (spoken(13), None, "the number of frames is 13, but it must be at most 12.*Nothing is cut short"),
    (replace(spoken(), source=torch.zeros(2, 4, 12)), None, "the number of mels is 4, but it must be 5"),
    (replace(spoken(), source=torch.full((2, 5, 12), float("nan"))), None, "the mel frames is 'not finite everywhere'"),
    (replace(spoken(), source=torch.zeros(2, 5, 0)), None, "at least one frame"),
    (replace(spoken(), source=torch.zeros(3, 5, 12)), None, "the rows of tokens is 2, but it must be 3"),
    (replace(spoken(), mask=torch.ones(2, 12, dtype=torch.bool)), None, r"the batch's mask.*bool \(2, 6\), over encoder positions"),
    (replace(spoken(), mask=torch.ones(2, 6)), None, "the batch's mask"),
    (replace(spoken(), mask=torch.zeros(2, 6, dtype=torch.bool)), None, "true at one position or more of every row"),
    (replace(spoken(), tokens=torch.full((2, 3), 13)), None, "a token id is 13"),
    (spoken(tokens=9), None, "number of tokens is 9, but it must be at most 8"),
    (spoken().source, None, "a SequenceBatch .or, where the run stops in the encoder, its source alone"),
    ("text", None, "the batch is 'str'"),
    (None, Resume(stop="encoder.blocks.0.hook_resid_post"), "or a run that starts at a residual of the encoder"),
    (spoken(), Resume(
        start="encoder.blocks.0.hook_resid_pre", residual=torch.zeros(2, 5, 16, dtype=torch.float64)
    ), r"rows and positions of resume.residual is \(2, 5\), but it must be \(2, 6\)"),
    (None, Resume(
        start="encoder.blocks.0.hook_resid_pre", residual=torch.zeros(2, 7, 16, dtype=torch.float64), stop="encoder.blocks.1.hook_resid_mid"
    ), "positions of resume.residual is 7, but it must be at most 6"),
    (spoken(), Resume(positions=torch.zeros(2, 5, dtype=torch.long)), "resume.positions"),
]  # fmt: skip


@pytest.mark.parametrize(("batch", "resume", "words"), REFUSED)
def test_what_does_not_fit_says_so(batch: Any, resume: Resume | None, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        built().run(batch, resume=resume)


def test_shapes_that_cannot_be() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"n_heads": 3}, "n_heads must divide d_model"),
        ({"d_model": 2, "n_heads": 1}, "at least 4 for sinusoids"),
        ({"d_model": 15, "n_heads": 5}, "multiple of 2"),
        ({"act": "swiglu"}, "act"),
        ({**PIXELS, "patch": 3}, "patch must divide image_size"),
        ({**PIXELS, "n_ctx_source": 6}, "n_ctx_source must be 5 for pixels"),
        ({**PIXELS, "positions": "sinusoid"}, "positions must be 'learned' for pixels"),
    ]
    for changes, words in cases:
        with pytest.raises(BadValue, match=words):
            built(**changes)
    with pytest.raises(UnknownName, match="'n_layers_encoder'"):
        built(n_layer_encoder=3)
    filled = WhisperConfig(n_layers_encoder=3, d_model=24, d_vocab=5)
    assert (filled.n_layers_decoder, filled.d_mlp) == (3, 96)


# --- images in place of sound


def seen(rows: int = 2, side: int = 4) -> SequenceBatch:
    pixels = torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return replace(spoken(rows=rows), source=pixels)


def test_the_same_wiring_captions_images() -> None:
    filled = WhisperConfig.parse({"source": "pixels", "image_size": 8, "patch": 2, "d_vocab": 5})
    assert (filled.n_ctx_source, filled.positions) == (17, "learned")
    model, batch = built(**PIXELS), seen()
    trace = model.run(batch, capture="*", cache=True)
    assert trace.logits is not None
    assert trace["encoder.hook_embed"].shape == (2, 5, 16)
    assert trace["decoder.blocks.0.cross_attn.hook_pattern"].shape == (2, 4, 5, 5)
    turned = model.run(replace(batch, source=batch.source.flip(3))).logits
    assert turned is not None
    assert gap(turned, trace.logits) > 1e-3
    past = model.run(replace(batch, tokens=batch.tokens[:, :2]), cache=True).past
    rest = model.run(replace(batch, tokens=batch.tokens[:, 2:]), resume=Resume(past=past)).logits
    assert rest is not None
    assert agree(rest, trace.logits[:, 2:], "logits")
    start = "encoder.blocks.1.hook_resid_pre"
    again = model.run(batch, resume=Resume(start=start, residual=trace[start])).logits
    assert again is not None
    assert agree(again, trace.logits, "logits")
    with pytest.raises(BadValue, match="the shape of the pixels"):
        model.run(spoken())
    with pytest.raises(BadValue, match="the mel frames"):
        built().run(batch)
