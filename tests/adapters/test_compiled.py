"""Compiled circuits: a folder written here whose every number is known by hand, the shared folder where there is one, and all refusals."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench.adapters import compiled
from workbench.core.batch import TokenBatch
from workbench.core.errors import AssayError, BadValue, CorruptFile, Incompatible, MissingFile, UnknownName
from workbench.core.protocol import Replace, Resume, Trace, Zero
from workbench.core.tolerance import agree, tolerance
from workbench.lab.refs import load

SHARED = Path(os.environ.get("WORKBENCH_COMPILED_CIRCUITS") or Path(__file__).parents[3] / "shared" / "compiled-circuits")
FOLDERS = sorted(path for path in SHARED.iterdir() if path.is_dir()) if SHARED.is_dir() else []
LABELS = [
    "tokens:BOS",
    "tokens:a",
    "tokens:b",
    "tokens:pad",
    "one",
    "prev:a",
    "prev:b",
    "prev:BOS",
    *(f"indices:{i}" for i in range(5)),
    "is:a",
]
SHARP = 100.0


def previous() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A program of two layers by hand. L0H0 copies the symbol before (causal; position 0 reads itself); L1MLP says whether that was an a.

    All other components are zero, L0MLP and L1H0 among them.
    """
    d = {label: i for i, label in enumerate(LABELS)}
    width, length = len(LABELS), 5
    arrays: dict[str, np.ndarray] = {}
    ids = {"BOS": 0, "a": 1, "b": 2, "pad": 3}
    arrays["token_embed/embeddings"] = np.zeros((4, width))
    for name, number in ids.items():
        arrays["token_embed/embeddings"][number, [d[f"tokens:{name}"], d["one"]]] = 1
    arrays["pos_embed/embeddings"] = np.zeros((length, width))
    for i in range(length):
        arrays["pos_embed/embeddings"][i, d[f"indices:{i}"]] = 1
    for i in range(2):
        at = f"transformer/layer_{i}"
        for part, shape in {"query": (width, 5), "key": (width, 5), "value": (width, 5), "linear": (5, width)}.items():
            arrays[f"{at}/attn/{part}/w"], arrays[f"{at}/attn/{part}/b"] = np.zeros(shape), np.zeros(shape[1])
        for part, shape in {"linear_1": (width, 2), "linear_2": (2, width)}.items():
            arrays[f"{at}/mlp/{part}/w"], arrays[f"{at}/mlp/{part}/b"] = np.zeros(shape), np.zeros(shape[1])
    query, key, value, out = (arrays[f"transformer/layer_0/attn/{part}/w"] for part in ("query", "key", "value", "linear"))
    for i in range(length):
        query[d[f"indices:{i}"], max(i - 1, 0)] = SHARP * math.sqrt(5)
        key[d[f"indices:{i}"], i] = 1
    for column, name in enumerate(("a", "b", "BOS")):
        value[d[f"tokens:{name}"], column] = 1
        out[column, d[f"prev:{name}"]] = 1
    arrays["transformer/layer_1/mlp/linear_1/w"][d["prev:a"], 0] = 1
    arrays["transformer/layer_1/mlp/linear_2/w"][0, d["is:a"]] = 0.5
    meta = {
        "name": "previous", "causal": True, "vocab": ["a", "b"], "max_seq_len": 4, "compiler_bos": "BOS", "compiler_pad": "pad",
        "num_heads": 1, "num_layers": 2, "key_size": 5, "mlp_hidden_size": 2, "d_model": width, "layer_norm": False,
        "activation": "relu", "residual_labels": LABELS, "input_encoding": ids, "output_encoding": {"a": 0, "b": 1, "BOS": 2},
        "output_is_numerical": False, "unembed_columns": [d["prev:a"], d["prev:b"], d["prev:BOS"]],
        "used_components": ["L0H0", "L1MLP"], "n_possible_components": 4,
        "edges": [["embed", "L0H0.q"], ["embed", "L0H0.k"], ["embed", "L0H0.v"], ["L0H0", "L1MLP"]],
        "examples": [
            {"input": ["BOS", "a", "b", "b", "a"], "output": ["BOS", "BOS", "a", "b", "b"]},
            {"input": ["BOS", "b"], "output": ["BOS", "BOS"]},
            {"input": ["BOS"], "output": ["BOS"]},
        ],
    }  # fmt: skip
    return meta, {name: value.astype(np.float32) for name, value in arrays.items()}


def numbers() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The same arrays read as numbers (half where an a came before), attending in both directions."""
    meta, arrays = previous()
    meta |= {"name": "numbers", "causal": False, "output_encoding": None, "output_is_numerical": True, "unembed_columns": [13]}
    meta["examples"] = [{"input": ["BOS", "a", "b", "a"], "output": ["BOS", 0.0, 0.5, 0]}]
    return meta, arrays


def written(folder: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(meta))
    save: Any = np.savez  # names with slashes are what the layout has
    save(folder / "params.npz", **arrays)
    return folder


def logits(trace: Trace) -> torch.Tensor:
    assert trace.logits is not None
    return trace.logits


def differs(model: compiled.Compiled) -> list[int]:
    """The numbers of the examples that ``model`` does not reproduce: symbols exactly, numbers by the float32 line of the table."""
    bound = tolerance(torch.float32, "logits").bound
    out: list[int] = []
    for number, example in enumerate(model.truth.examples):
        found = model.outputs(example.given[1:])
        same = [
            abs(a - b) <= bound * max(1.0, abs(b)) if isinstance(a, float) and isinstance(b, float) else a == b
            for a, b in zip(found, example.expected, strict=True)
        ]
        if not all(same):
            out.append(number)
    return out


# --- what the model is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [previous, numbers])
def test_every_example_is_reproduced(make: Callable[[], Any], tmp_path: Path) -> None:
    model = compiled.load(written(tmp_path, *make()))
    assert differs(model) == []
    assert not model.training
    assert model.truth.labels == tuple(LABELS)


def test_a_wrong_example_is_noticed(tmp_path: Path) -> None:
    meta, arrays = previous()
    meta["examples"][1]["output"][1] = "a"
    assert differs(compiled.load(written(tmp_path, meta, arrays))) == [1]
    meta, arrays = numbers()
    meta["examples"][0]["output"][2] = 0.500003
    assert differs(compiled.load(written(tmp_path, meta, arrays))) == [0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_arrays_computed_by_hand_are_every_site(dtype: torch.dtype, tmp_path: Path) -> None:
    """The slow twin: the layout's equations in NumPy float64, head by head."""
    meta, arrays = previous()
    model = compiled.load(written(tmp_path, meta, arrays)).to(dtype)
    generator = np.random.default_rng(0)
    state = model.state_dict()
    for i in range(2):  # every weight moved, so that no term is zero
        for part, ours in (("attn/query", "attn.q"), ("attn/key", "attn.k"), ("attn/value", "attn.v"), ("attn/linear", "attn.o"),
                           ("mlp/linear_1", "mlp.inner"), ("mlp/linear_2", "mlp.out")):  # fmt: skip
            for letter, word in (("w", "weight"), ("b", "bias")):
                name = f"transformer/layer_{i}/{part}/{letter}"
                arrays[name] = (0.01 * arrays[name] + generator.normal(0, 0.3, arrays[name].shape)).astype(np.float32)
                state[f"stack.blocks.{i}.{ours}.{word}"] = torch.from_numpy(arrays[name].T).to(dtype)
    model.load_state_dict(state)
    ids = np.array([0, 1, 2, 2, 1])
    wide = {name: value.astype(np.float64) for name, value in arrays.items()}
    expected: dict[str, np.ndarray] = {}
    x = wide["token_embed/embeddings"][ids] + wide["pos_embed/embeddings"][:5]
    for i in range(2):
        at = {name.removeprefix(f"transformer/layer_{i}/"): value for name, value in wide.items()}
        expected[f"blocks.{i}.hook_resid_pre"] = x
        q, k, v = (x @ at[f"attn/{part}/w"] + at[f"attn/{part}/b"] for part in ("query", "key", "value"))
        scores = np.where(np.tril(np.ones((5, 5), bool)), q @ k.T / math.sqrt(5), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        pattern = weights / weights.sum(-1, keepdims=True)
        expected[f"blocks.{i}.attn.hook_pattern"] = pattern[None]
        expected[f"blocks.{i}.hook_attn_out"] = pattern @ v @ at["attn/linear/w"] + at["attn/linear/b"]
        x = x + expected[f"blocks.{i}.hook_attn_out"]
        post = np.maximum(x @ at["mlp/linear_1/w"] + at["mlp/linear_1/b"], 0)
        expected[f"blocks.{i}.mlp.hook_post"] = post
        expected[f"blocks.{i}.hook_mlp_out"] = post @ at["mlp/linear_2/w"] + at["mlp/linear_2/b"]
        x = x + expected[f"blocks.{i}.hook_mlp_out"]
    expected["unembed.hook_in"] = x
    expected["unembed.hook_logits"] = x[:, meta["unembed_columns"]]
    trace = model.run(torch.from_numpy(ids)[None], capture=list(expected))
    for name, value in expected.items():
        assert agree(trace[name], torch.from_numpy(value)[None], "activation"), name
    assert trace.logits is not None
    assert torch.equal(trace.logits, trace["unembed.hook_logits"])


def test_sites_have_their_axes_and_the_stream_adds_up(tmp_path: Path) -> None:
    model = compiled.load(written(tmp_path, *previous()))
    trace = model.run("a b b", capture="*")
    length = {
        "batch": 1, "pos": 4, "query": 4, "key": 4, "head": 1, "kv_head": 1, "d_model": 14, "d_head": 5, "d_mlp": 2, "class": 3,
    }  # fmt: skip
    assert list(trace.at) == list(model.sites())
    for site in model.sites().values():
        assert tuple(trace[site].shape) == tuple(length[word] for word in site.axes), site.name
    assert model.sites().additive
    for i in range(2):
        at = f"blocks.{i}."
        assert torch.equal(trace[at + "hook_resid_mid"], trace[at + "hook_resid_pre"] + trace[at + "hook_attn_out"])
        assert torch.equal(trace[at + "hook_resid_post"], trace[at + "hook_resid_mid"] + trace[at + "hook_mlp_out"])


def test_the_planted_head_carries_the_answer_and_the_others_do_not(tmp_path: Path) -> None:
    model = compiled.load(written(tmp_path, *previous()))
    plain = logits(model.run("a b b a"))
    for i, part in ((0, "mlp"), (1, "attn"), (1, "mlp")):
        assert torch.equal(logits(model.run("a b b a", edit=[Zero(f"blocks.{i}.hook_{part}_out")])), plain)
    assert not logits(model.run("a b b a", edit=[Zero("blocks.0.attn.hook_z", at={"head": 0})])).any()
    flipped = logits(model.run("a b b a", edit=[Replace("blocks.0.attn.hook_pattern", value=torch.eye(5))]))
    assert model.decode(flipped)[0][1:] == ["a", "b", "b", "a"]  # each symbol reads itself


def test_gradients_and_parts_of_a_run(tmp_path: Path) -> None:
    model = compiled.load(written(tmp_path, *numbers()))
    ids = torch.tensor([[0, 1, 2]])
    trace = model.run(ids, capture="blocks.1.hook_resid_pre", grad=True)
    assert trace.logits is not None
    assert trace.logits.requires_grad
    residual = trace["blocks.1.hook_resid_pre"].detach()
    went_on = model.run(None, resume=Resume(start="blocks.1.hook_resid_pre", residual=residual))
    assert torch.equal(logits(went_on), trace.logits)
    ended = model.run(ids, capture="blocks.0.hook_resid_post", resume=Resume(stop="blocks.0.hook_resid_post"))
    assert ended.logits is None
    assert torch.equal(ended["blocks.0.hook_resid_post"], residual)
    none = model.run(ids, capture="unembed.hook_logits", logits=None)
    assert none.logits is None
    assert torch.equal(none["unembed.hook_logits"], trace.logits.detach())


@pytest.mark.parametrize("make", [previous, numbers])
def test_padding_is_attended_to_by_nobody(make: Callable[[], Any], tmp_path: Path) -> None:
    model = compiled.load(written(tmp_path, *make()))
    both = model.run(["a b b a", "b a"])
    alone, last = model.run("b a"), model.run(["a b b a", "b a"], logits="last")
    assert both.logits is not None
    assert alone.logits is not None
    assert last.logits is not None
    assert agree(both.logits[1:, :3], alone.logits, "logits")
    assert torch.equal(last.logits[:, 0], torch.stack([both.logits[0, 4], both.logits[1, 2]]))
    ids = torch.tensor([[0, 1, 2, 2, 1], [0, 2, 1, 3, 3]])
    assert torch.equal(logits(model.run(ids)), both.logits)
    other = torch.tensor([[0, 1, 2, 2, 1], [0, 2, 1, 1, 2]])  # what stands behind the end is nobody's
    assert torch.equal(model.padded(other, torch.arange(5) < torch.tensor([[5], [3]])), ids)
    middle = model.run(ids, capture="blocks.0.hook_resid_post")["blocks.0.hook_resid_post"]
    went_on = model.run(ids, resume=Resume(start="blocks.0.hook_resid_post", residual=middle))
    assert torch.equal(logits(went_on), both.logits)  # the batch still says what is padding


def test_weights_have_public_names(tmp_path: Path) -> None:
    meta, arrays = previous()
    model = compiled.load(written(tmp_path, meta, arrays))
    assert torch.equal(model.weight("blocks.0.attn.W_Q")[0], torch.from_numpy(arrays["transformer/layer_0/attn/query/w"]))
    assert torch.equal(model.weight("blocks.1.mlp.W_in"), torch.from_numpy(arrays["transformer/layer_1/mlp/linear_1/w"]))
    assert model.weight("W_U").T.nonzero()[:, 1].tolist() == meta["unembed_columns"]
    assert "generate" not in model.abilities  # its logits are over outputs, which are no next symbols


def test_a_reference_opens_a_folder(tmp_path: Path) -> None:
    folder = written(tmp_path / "previous", *previous())
    model: Any = load(f"compiled:{folder}")
    assert model.family == "compiled"
    assert model.digest() == compiled.load(folder).digest()
    assert model.name == f"compiled:{folder}"
    with pytest.raises(MissingFile, match=r"No description of a compiled circuit at '.*nowhere/meta\.json'"):
        load(f"compiled:{tmp_path / 'nowhere'}")


# --- what is refused ----------------------------------------------------------------------------------------


def test_what_a_program_cannot_read_is_refused(tmp_path: Path) -> None:
    model = compiled.load(written(tmp_path, *previous()))
    with pytest.raises(BadValue, match="first symbol of a row is 'another', but it must be BOS"):
        model.run(torch.tensor([[1, 2]]))
    for text in ("a c", "BOS a", "a pad"):
        with pytest.raises(UnknownName, match="no symbol '(c|BOS|pad)' in this program's alphabet"):
            model.run(text)
    with pytest.raises(BadValue, match="number of tokens is 6, but it must be at most 5"):
        model.run("a a a a a")
    ids = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(BadValue, match="the batch's segments"):
        model.run(TokenBatch(ids, ids, segments=ids))
    with pytest.raises(BadValue, match=r"cache is True.*reads everything at once"):
        model.run("a", cache=True)
    with pytest.raises(BadValue, match="shape of the logits"):
        model.decode(torch.zeros(1, 2, 4))


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path, *previous())
    (folder / "params.npz").unlink()
    with pytest.raises(MissingFile, match=r"weights of a compiled circuit at '.*params\.npz'"):
        compiled.load(folder)


Change = Callable[[dict[str, Any], dict[str, Any]], Any]


def broken_meta(**changes: Any) -> Change:
    return lambda meta, arrays: meta.update(changes)


def without(name: str) -> Change:
    return lambda meta, arrays: (meta if name in meta else arrays).pop(name)


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda meta, arrays: arrays.update({name: change(arrays[name]) if name in arrays else change(np.zeros((2, 2), np.float32))})


W = "transformer/layer_0/attn/query/w"
BROKEN: dict[str, tuple[Change, type[AssayError], str]] = {
    "unknown field": (broken_meta(n_experts=2), Incompatible, "the field 'n_experts' is not handled"),
    "norm": (broken_meta(layer_norm=True), Incompatible, "layer_norm=True is not handled"),
    "activation": (broken_meta(activation="gelu"), Incompatible, "activation='gelu' is not handled"),
    "missing field": (without("edges"), CorruptFile, "the field 'edges' is missing"),
    "no number": (broken_meta(num_layers="two"), CorruptFile, "num_layers"),
    "numbering": (broken_meta(input_encoding={"BOS": 0, "a": 1, "b": 2, "pad": 4}), CorruptFile, "number its symbols 0 to 3"),
    "alphabet": (broken_meta(vocab=["a", "c"]), CorruptFile, "'input_encoding' names"),
    "labels": (broken_meta(residual_labels=["x"]), CorruptFile, "'residual_labels' has 1 names for 14"),
    "columns": (broken_meta(unembed_columns=[5, 6, 14]), CorruptFile, "'unembed_columns' are not distinct dimensions within 0 to 13"),
    "outputs": (broken_meta(output_encoding={"a": 0, "b": 1}), CorruptFile, "'output_encoding' does not number"),
    "numerical": (broken_meta(output_is_numerical=True), CorruptFile, "needs one unembed column"),
    "example": (broken_meta(examples=[{"input": ["BOS", "z"], "output": ["BOS", "a"]}]), CorruptFile, "'examples' number 0 does not fit"),
    "answer": (broken_meta(examples=[{"input": ["BOS", "a"], "output": ["BOS", "z"]}]), CorruptFile, "number 0 expects 'z'"),
    "begin": (broken_meta(examples=[{"input": ["a"], "output": ["a"]}]), CorruptFile, "number 0 does not begin with BOS"),
    "missing array": (without(W), CorruptFile, f"'{W}' is missing"),
    "unknown array": (array("transformer/layer_0/gate/w", lambda x: x), CorruptFile, "'transformer/layer_0/gate/w' is unexpected"),
    "shape": (array(W, lambda x: x[:-1]), CorruptFile, f"'{W}' has shape"),
    "axes": (array(W, lambda x: x[None]), CorruptFile, f"'{W}' has shape"),
    "dtype": (array(W, lambda x: x.astype(np.float64)), CorruptFile, f"'{W}' is float64"),
    "nan": (array(W, lambda x: x * np.float32("nan")), CorruptFile, f"'{W}' holds a NaN"),
    "unused": (array(W, np.zeros_like), CorruptFile, r"'edges' differs from the weights at \[\('embed', 'L0H0.q'\)\]"),
    "used": (broken_meta(used_components=["L0H0"]), CorruptFile, r"'used_components' differs from the weights at \['L1MLP'\]"),
    "possible": (broken_meta(n_possible_components=3), CorruptFile, "'n_possible_components' differs"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_folder_that_is_not_as_the_layout_says_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    change, error, words = BROKEN[kind]
    meta, arrays = previous()
    change(meta, arrays)
    with pytest.raises(error, match=words):
        compiled.load(written(tmp_path, meta, arrays))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, *previous())
    whole = (folder / "params.npz").read_bytes()
    for content in (whole[:200], b"", b"not a zip"):
        (folder / "params.npz").write_bytes(content)
        with pytest.raises(CorruptFile, match="npz form, but it cannot be read"):
            compiled.load(folder)
    np.savez(folder / "params.npz", odd=np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(CorruptFile, match="cannot be read"):
        compiled.load(folder)  # an object array is a pickle, and none is opened
    for text, words in (("{", "JSON"), ("[]", "a JSON object")):
        (folder / "meta.json").write_text(text)
        with pytest.raises(CorruptFile, match=words):
            compiled.load(folder)


# --- the shared folder --------------------------------------------------------------------------------------


@pytest.mark.skipif(not FOLDERS, reason="no compiled circuits: set WORKBENCH_COMPILED_CIRCUITS to a folder that holds them")
@pytest.mark.slow
def test_every_example_of_every_shared_circuit_is_reproduced() -> None:
    for folder in FOLDERS:
        model = compiled.load(folder)
        assert len(model.truth.examples) >= 30
        assert differs(model) == [], folder.name
