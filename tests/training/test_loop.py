"""The loop: what it computes, that it can be continued to the byte, and when it stops."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.setting import Copying, model, spec
from workbench.blocks.digest import weights_digest
from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.errors import BadValue, CorruptFile, Diverged
from workbench.training import loop
from workbench.training.checkpoint import load_model, pointed, read
from workbench.training.loop import evaluate, train


def test_it_learns_and_says_what_it_did() -> None:
    m, data = model(dropout=0.0), Copying()
    before = evaluate(m, data)[0]
    words: list[tuple[int, int, str]] = []
    history = train(m, data, spec(steps=150), validation=data, progress=lambda *a: words.append(a))
    loss, tokens = evaluate(m, data, rows=16)
    assert history["validation"] == [{"step": 150, "loss": loss, "tokens": tokens}]
    assert evaluate(m, data, rows=5) == (pytest.approx(loss, rel=1e-6), tokens)
    assert history["validation"][0]["loss"] < 0.6 * before
    assert (history["steps"], history["stopped"], history["threads"]) == (150, "steps", 1)
    assert history["weights"] == weights_digest(m.state_dict())
    assert [r["step"] for r in history["record"]] == list(range(1, 151))
    assert history["record"][-1]["tokens"] == history["tokens"]
    assert [w[0] for w in words] == list(range(1, 151))
    assert all(total == 150 and "tokens/s" in text and text.endswith("left") and text.startswith("loss ") for _, total, text in words)


def test_the_first_step_by_hand() -> None:
    """One AdamW step (bias-corrected, decoupled decay, clipped gradient) written out."""
    m, data = model(dropout=0.0).double(), Copying()
    twin = model(dropout=0.0).double()
    s = spec(steps=1, warmup=0, clip=0.5, weight_decay=0.2)
    history = train(m, data, s)
    batch = data.batch(data.asked[0])
    total, count = twin.loss(batch)
    (total / count).backward()
    grads = {n: p.grad for n, p in twin.named_parameters() if p.grad is not None}
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
    assert history["record"][0]["norm"] == pytest.approx(norm, rel=1e-9)
    assert history["record"][0]["loss"] == pytest.approx(float(total.detach()) / count, rel=1e-12)
    decaying = set(history["decaying"])
    for (n, p), old in zip(m.named_parameters(), twin.parameters(), strict=True):
        g = grads[n] * min(1.0, 0.5 / (norm + 1e-6))
        expected = old.detach() * (1 - 1e-2 * 0.2 if n in decaying else 1) - 1e-2 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_accumulating_equals_one_big_batch(k: int) -> None:
    one, many = model(dropout=0.0).double(), model(dropout=0.0).double()
    a = train(one, Copying(), spec(steps=10))
    b = train(many, Copying(), spec(steps=10, accumulate=k))
    assert a["tokens"] == b["tokens"]
    for (name, p), q in zip(one.named_parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11, msg=name)
    # Rows have different numbers of targets: a mean of means would be another thing.
    data = Copying()
    counts = {int((data.batch([r]).targets != IGNORE).sum()) for r in range(len(data))}
    assert len(counts) > 3


def test_the_same_call_gives_the_same_weights_and_other_seeds_others() -> None:
    weights = [train(model(), Copying(), spec(seed=seed))["weights"] for seed in (0, 0, 1)]
    assert weights[0] == weights[1] != weights[2]


def test_the_global_random_state_neither_matters_nor_changes() -> None:
    torch.manual_seed(1)
    one = train(model(), Copying(), spec())["weights"]
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    assert train(model(), Copying(), spec())["weights"] == one
    assert torch.equal(torch.random.get_rng_state(), state)


def test_dropout_is_on_in_training_and_drawn_anew_each_step() -> None:
    with_, without = (train(model(dropout=d), Copying(), spec())["weights"] for d in (0.1, 0.0))
    assert with_ != without
    draws = []
    for step, micro in ((0, 0), (1, 0), (0, 1), (0, 0)):
        with loop._drawing(torch.device("cpu"), 0, step, micro):
            draws.append(torch.rand(4).tolist())
    assert draws[0] == draws[3]
    assert len({str(d) for d in draws}) == 3


class Interrupted(Exception):
    """Stands for whatever ended a process."""


def stop_at(step: int) -> Any:
    def callback(event: str, state: Any) -> None:
        if event == "step" and state["step"] == step:
            raise Interrupted

    return callback


@pytest.mark.parametrize("at", [10, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 5, 9, 19))])
def test_a_continued_run_equals_an_unbroken_one(tmp_path: Path, at: int) -> None:
    s = spec(save_every=3, validate_every=5, accumulate=2)
    whole = train(model(), Copying(), s, out=tmp_path / "whole", validation=Copying(seed=1))
    with pytest.raises(Interrupted):
        train(model(), Copying(), s, out=tmp_path / "cut", validation=Copying(seed=1), callbacks=[stop_at(at)])
    rest = train(model(), Copying(), s, out=tmp_path / "cut", validation=Copying(seed=1))
    assert rest["resumed_from"] == (max((n for n in range(1, at) if n % 3 == 0 or n % 5 == 0), default=None))
    for name in ("weights", "record", "validation", "best", "tokens", "steps", "stopped"):
        assert rest[name] == whole[name], name
    for name in ("model.safetensors", "train_state.json", "config.json"):
        assert (tmp_path / "cut" / "final" / name).read_bytes() == (tmp_path / "whole" / "final" / name).read_bytes()


def test_without_a_checkpoint_a_run_begins_anew(tmp_path: Path) -> None:
    whole = train(model(), Copying(), spec())
    with pytest.raises(Interrupted):
        train(model(), Copying(), spec(save_every=10), out=tmp_path, callbacks=[stop_at(4)])
    rest = train(model(), Copying(), spec(save_every=10), out=tmp_path)
    assert rest["resumed_from"] is None
    assert rest["weights"] == whole["weights"]  # saving changes nothing


@pytest.mark.parametrize("fault", ["order", "dropout", *(pytest.param(name, marks=pytest.mark.slow) for name in ("optimizer", "schedule"))])
def test_a_fault_in_resuming_would_be_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Each part of the state matters: break one, and the continued run no longer equals the unbroken one."""
    s = spec(save_every=5)
    whole = train(model(), Copying(), s)["weights"]
    with pytest.raises(Interrupted):
        train(model(), Copying(), s, out=tmp_path, callbacks=[stop_at(8)])
    if fault == "order":  # the first epoch again, as a loader without a counter would
        real = loop.row_order
        monkeypatch.setattr(loop, "row_order", lambda seed, step, *rest: real(seed, step - 5, *rest))
    if fault == "dropout":  # the stream from its beginning, as a reseeded process would
        drawing = loop._drawing
        monkeypatch.setattr(loop, "_drawing", lambda device, seed, step, micro: drawing(device, seed, step - 5, micro))
    if fault == "optimizer":
        monkeypatch.setattr(loop, "restore", lambda *_: None)
    if fault == "schedule":
        rate = type(s).lr_at
        monkeypatch.setattr(type(s), "lr_at", lambda self, step: rate(self, step - 5))
    assert train(model(), Copying(), s, out=tmp_path)["weights"] != whole


def test_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    data, m = Copying(), model()
    first = train(m, data, spec(), out=tmp_path)
    asked = len(data.asked)
    again = model()
    second = train(again, data, spec(), out=tmp_path)
    assert len(data.asked) == asked
    assert second["weights"] == first["weights"] == weights_digest(again.state_dict())
    assert second["record"] == first["record"]
    assert load_model(tmp_path / "final").digest() == m.digest()


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    train(model(), Copying(), spec(save_every=5), out=tmp_path)
    shutil.rmtree(tmp_path / "final")
    for args, words in [
        ((model(), Copying(), spec(save_every=5, lr=0.02)), "another training spec"),
        ((model(), Copying(seed=3), spec(save_every=5)), "another training data"),
        ((model(seed=1), Copying(), spec(save_every=5)), "another untrained model"),
    ]:
        with pytest.raises(BadValue, match=words):
            train(*args, out=tmp_path)
    with pytest.raises(BadValue, match="since it holds a run"):
        train(model(), Copying(), spec(save_every=5), out=tmp_path, resume=False)
    damaged = pointed(tmp_path, "latest")
    assert damaged is not None
    (damaged / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(CorruptFile, match="optimizer"):
        train(model(), Copying(), spec(save_every=5), out=tmp_path)


def test_checkpoints_come_before_validation_and_old_ones_go(tmp_path: Path) -> None:
    events: list[tuple[str, int]] = []

    def note(event: str, state: Any) -> None:
        if event == "checkpoint":
            assert read(state["folder"]).train_state["step"] == state["step"]
        if event != "step":
            events.append((event, state["step"]))

    train(model(), Copying(), spec(save_every=4, validate_every=8, keep=1), out=tmp_path, validation=Copying(seed=1), callbacks=[note])
    assert events == [
        ("checkpoint", 4), ("checkpoint", 8), ("validation", 8), ("checkpoint", 12),
        ("checkpoint", 16), ("validation", 16), ("checkpoint", 20), ("validation", 20), ("end", 20),
    ]  # fmt: skip
    steps = {p.name for p in tmp_path.glob("step-*")}
    best = pointed(tmp_path, "best")
    assert best is not None
    assert steps == {"step-00000020", best.name}


class Scripted:
    """Validation data whose loss follows a script: one number a validation."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def __len__(self) -> int:
        return 1

    def digest(self) -> str:
        return "scripted"


@pytest.mark.parametrize("saved", [True, False])
def test_early_stopping_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool) -> None:
    script = [3.0, 2.0, 2.5, 1.0, 1.5, 1.0, 9.0, 0.1]
    seen: list[dict[str, torch.Tensor]] = []

    def scripted(m: Any, data: Any, **_: Any) -> tuple[float, int]:
        seen.append({n: p.detach().clone() for n, p in m.state_dict().items()})
        return script[len(seen) - 1], 7

    monkeypatch.setattr(loop, "evaluate", scripted)
    m = model()
    s = spec(steps=40, validate_every=5, patience=3)
    history = train(m, Copying(), s, validation=Scripted(script), out=tmp_path if saved else None)  # type: ignore[arg-type]  # never asked for rows
    assert history["stopped"] == "patience"
    assert history["steps"] == 35
    assert history["best"] == {"step": 20, "loss": 1.0}  # an equal loss later is no improvement
    assert history["weights"] == weights_digest(seen[3]) == weights_digest(m.state_dict())
    if saved:
        assert load_model(tmp_path / "final").digest() == m.digest()


@pytest.mark.slow
def test_early_stopping_continues_to_the_byte(tmp_path: Path) -> None:
    s = spec(steps=60, validate_every=5, patience=2, lr=0.05, min_lr=0.05)
    whole = train(model(), Copying(6), s, out=tmp_path / "whole", validation=Copying(6, seed=5))
    assert whole["stopped"] == "patience"
    for at in (6, whole["steps"] - 1):
        with pytest.raises(Interrupted):
            train(model(), Copying(6), s, out=tmp_path / f"cut{at}", validation=Copying(6, seed=5), callbacks=[stop_at(at)])
        rest = train(model(), Copying(6), s, out=tmp_path / f"cut{at}", validation=Copying(6, seed=5))
        assert {n: rest[n] for n in ("weights", "best", "steps")} == {n: whole[n] for n in ("weights", "best", "steps")}


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(tmp_path: Path, poison: float) -> None:
    m = model()

    def spoil(event: str, state: Any) -> None:
        if event == "step" and state["step"] == 7:
            with torch.no_grad():
                state["model"].embed.token.weight[:, 0] = poison

    with pytest.raises(Diverged, match=r"stopped at step 7: the loss is nan.*step-00000005', is whole") as caught:
        train(m, Copying(), spec(save_every=5), out=tmp_path, callbacks=[spoil])
    assert caught.value.exit_code == 3
    folder = pointed(tmp_path, "latest")
    assert folder is not None
    assert all(w.isfinite().all() for w in read(folder).weights.values())
    assert not (tmp_path / "final").exists()


@pytest.mark.slow
def test_bf16_computes_in_bf16_and_keeps_float32_weights() -> None:
    m = model(dropout=0.0)
    plain = train(model(dropout=0.0), Copying(), spec(steps=60))
    history = train(m, Copying(), spec(steps=60, precision="bf16"))
    assert {p.dtype for p in m.parameters()} == {torch.float32}
    assert history["weights"] != plain["weights"]
    assert history["record"][-1]["loss"] == pytest.approx(plain["record"][-1]["loss"], rel=0.15)


def test_threads_and_mode_are_put_back() -> None:
    m, before = model().eval(), torch.get_num_threads()
    train(m, Copying(), spec(steps=2, threads=1))
    assert torch.get_num_threads() == before
    assert not m.training


def test_a_resumed_run_uses_the_threads_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of threads is played by a variable: real threads on a busy machine would make this slow."""
    threads = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: threads.__setitem__(0, n))
    seen: list[int] = []
    note = lambda event, state: seen.append(threads[0])  # noqa: E731
    s = spec(save_every=5, threads=0)
    with pytest.raises(Interrupted):
        train(model(), Copying(), s, out=tmp_path, callbacks=[note, stop_at(6)])
    threads[0] = 1
    history = train(model(), Copying(), s, out=tmp_path, callbacks=[note])
    assert set(seen) == {2}
    assert history["threads"] == 2
    assert threads == [1]


def test_data_that_cannot_be_trained_on() -> None:
    class Empty(Copying):
        def __len__(self) -> int:
            return 0

    class Silent(Copying):
        def batch(self, indices: Any) -> TokenBatch:
            found = super().batch(indices)
            return TokenBatch(found.tokens, torch.full_like(found.targets, IGNORE))

    with pytest.raises(BadValue, match="the training data is 'no rows'"):
        train(model(), Empty(), spec())
    with pytest.raises(BadValue, match=r"rows of step 0.*at least one token to predict"):
        train(model(), Silent(), spec())
    with pytest.raises(BadValue, match="0 without validation data"):
        train(model(), Copying(), spec(patience=1, validate_every=2))
    with pytest.raises(BadValue, match="the validation data is 'no targets'"):
        evaluate(model(), Silent())
    with pytest.raises(BadValue, match="the validation data is 'no rows'"):
        evaluate(model(), Empty())


def test_spans_read_well() -> None:
    assert [loop._span(s) for s in (0.4, 59.4, 80, 3600, 7384)] == ["0 s", "59 s", "1 min 20 s", "1 h 00 min", "2 h 03 min"]
