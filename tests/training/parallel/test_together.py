"""Several real processes under ``torchrun`` against one: the same samples, the same curve, the same model to listen to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.parallel.driver import FAMILY, answer
from tests.training.parallel.launch import answers
from workbench.core.tolerance import tolerance
from workbench.training.checkpoint import load_model, read

CLOSE = 1e-10
"""Of curves of 50 steps in float64."""
# Adam divides by the root of small squares: where a contrastive gradient nearly vanishes, rounding grows by the step at a rate that the
# learning rate sets (from 1e-16 to 1e-10 in 50 steps at lr 1e-2), in one process with its rows in another order just as in two.
SLOWER = {"lr": 2e-3, "min_lr": 1e-3}


def job(family: str, kind: str = "none", *, tp: int = 0, dtype: str = "float64", train: Any = None, **rest: Any) -> dict[str, Any]:
    """A training of ``family``: with images and texts at a lower rate, and heads that two can share where they are to."""
    divided = {} if kind == "none" else {"parallel": {"kind": kind, "tp": tp}}
    config = {"n_heads_image": 2} if family == "clip" and (kind == "tp" or tp > 1) else {}
    slower = SLOWER if family == "clip" else {}
    return {"family": family, "dtype": dtype, "train": slower | (train or {}) | divided, "config": config, **rest}


ALONE: dict[str, dict[str, Any]] = {}


def alone(wanted: dict[str, Any]) -> dict[str, Any]:
    """The same training in this process."""
    train = {name: value for name, value in wanted["train"].items() if name != "parallel"}
    same = {name: value for name, value in wanted.items() if name in ("family", "dtype", "config")} | {"train": train}
    if str(same) not in ALONE:
        ALONE[str(same)] = answer(same)
    return ALONE[str(same)]


def gaps(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    """The largest distances between two trainings: of losses (from the step the first was resumed at), norms, validations, and sites."""
    tail = expected["losses"][-len(found["losses"]) :] if found["losses"] else []
    out = {"loss": max((abs(a - b) for a, b in zip(found["losses"], tail, strict=True)), default=0.0)}
    for name, field in (("record", "norm"), ("validation", "loss")):
        pairs = [(a[field], b[field]) for a, b in zip(found[name], expected[name], strict=True)]
        out[field if name == "record" else name] = max(abs(a - b) for a, b in pairs)
    for name in ("heard", "amid"):
        if found[name]:
            assert found[name].keys() == expected[name].keys()
            out[name] = max(abs(value - expected[name][site]) / max(1.0, abs(value)) for site, value in found[name].items())
    return out


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal up to rounding in float64: curve and norms within 1e-10, every site within what that leaves."""
    assert found["tokens"] == expected["tokens"]
    found_gaps = gaps(found, expected)
    print(found_gaps)
    assert found_gaps.pop("loss") <= CLOSE
    assert found_gaps.pop("validation") <= CLOSE
    assert all(value <= 1e-8 for value in found_gaps.values()), found_gaps


TWO: list[dict[str, Any]] = [job("seq2seq", "ddp", train={"steps": 20}), job("clip", "fsdp", train={"steps": 20})]
PLANTED = [job("gpt", "ddp", train={"steps": 5}, broken="mean"), job("gpt", "ddp", train={"steps": 5}, broken="order"),
           job("clip", "ddp", train={"steps": 5}, broken="apart")]  # fmt: skip
REFUSED = job("gpt", "fsdp", train={"accumulate": 6}, fails=True)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """Everything that two processes do, in one start."""
    folder = tmp_path_factory.mktemp("two")
    saved = {"save_every": 10}
    assert answer(job("gpt", train=saved, out=str(folder / "one"), stop=35))["stopped"] == "enough"
    cut = [
        job("gpt", "fsdp", train=saved, out=str(folder / "cut"), stop=35, copy=str(folder / "copy")),
        job("gpt", "fsdp", train=saved, out=str(folder / "cut")),
        job("gpt", "ddp", train=saved, out=str(folder / "one")),
    ]
    return answers(2, [*TWO, *PLANTED, REFUSED, *cut], folder), folder


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(TWO)), ids=[f"{one['family']}-{one['train']['parallel']['kind']}" for one in TWO])
def test_two_processes_are_one(two: tuple[list[dict[str, Any]], Path], number: int) -> None:
    same(two[0][number], alone(TWO[number]))


@pytest.mark.slow
def test_a_fault_in_sharing_would_be_caught(two: tuple[list[dict[str, Any]], Path]) -> None:
    for found, planted in zip(two[0][len(TWO) :], PLANTED):
        right = alone({name: value for name, value in planted.items() if name != "broken"})
        assert gaps(found, right)["loss"] > 1e-4, planted["broken"]


@pytest.mark.slow
def test_more_processes_than_rows_are_refused_in_all_of_them(two: tuple[list[dict[str, Any]], Path]) -> None:
    assert "2 processes to share 1 rows of a micro-batch" in two[0][len(TWO) + len(PLANTED)]["error"]


@pytest.mark.slow
def test_resuming_with_as_many_and_with_fewer_and_with_more(two: tuple[list[dict[str, Any]], Path], tmp_path: Path) -> None:
    found, folder = two
    expected = alone(job("gpt", train={"save_every": 10}))
    cut, as_many, more = found[-3:]
    assert cut["stopped"] == "enough"
    assert cut["losses"] == pytest.approx(expected["losses"][:35], abs=CLOSE)
    parts = sorted(path.name for path in (folder / "copy" / "step-00000030").glob("*.safetensors"))
    assert parts == ["shard-00001-model-00001-of-00001.safetensors", "shard-00002-model-00001-of-00001.safetensors"]
    fewer = answer(job("gpt", train={"save_every": 10}, out=str(folder / "copy")))
    for one in (as_many, more, fewer):
        assert (one["resumed_from"], len(one["losses"])) == (30, 20)
        same(one, expected)
    # What is left at the end is one device's: whole tensors in the usual file, and the parts give the same weights.
    final, last = load_model(folder / "cut" / "final"), read(folder / "cut" / "step-00000050")
    assert last.cut
    assert last.optimizer is not None
    assert {name: value.dtype for name, value in last.weights.items()} == {n: v.dtype for n, v in final.state_dict().items()}
    assert all(torch.equal(value, last.weights[name]) for name, value in final.state_dict().items())


@pytest.mark.slow
def test_parts_are_believed_only_when_verified(two: tuple[list[dict[str, Any]], Path], tmp_path: Path) -> None:
    folder = tmp_path / "step"
    shutil.copytree(two[1] / "cut" / "step-00000050", folder)
    path = next(folder.glob("shard-00002-*"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Exception, match="as its manifest says"):
        load_model(folder)
    path.unlink()
    with pytest.raises(Exception, match="No checkpoint file"):
        load_model(folder)


# --- every family, every kind, two and four processes -------------------------------------------------------

WIDE = {"batch_rows": 10}  # five rows a micro-batch: four processes have one or two


@pytest.mark.full
@pytest.mark.parametrize(
    ("processes", "kind", "tp", "families"),
    [
        (2, "ddp", 0, FAMILY), (2, "fsdp", 0, FAMILY), (2, "tp", 0, FAMILY),
        (4, "fsdp", 0, FAMILY), (4, "tp", 2, ("gpt", "bert", "vit")), (4, "fsdp", 2, ("seq2seq", "clip")),
    ],
)  # fmt: skip
def test_every_family(processes: int, kind: str, tp: int, families: tuple[str, ...], tmp_path: Path) -> None:
    jobs = [job(family, kind, tp=tp, train=WIDE if processes == 4 else {}) for family in families]
    for found, wanted in zip(answers(processes, jobs, tmp_path), jobs, strict=True):
        same(found, alone(wanted))


@pytest.mark.full
def test_a_pipeline_is_one_device_and_resumes_as_one(tmp_path: Path) -> None:
    """Tied weights learn in the first stage and the last; shared layers in both. A model of two stacks is refused by name."""
    out, again, saved = str(tmp_path / "out"), str(tmp_path / "again"), {"save_every": 10}
    shared = job("gpt", "pipeline") | {"config": {"economy": {"groups": 1}}}
    jobs = [job("gpt", "pipeline"), job("bert", "pipeline"), job("vit", "pipeline"), shared]
    jobs += [job("gpt", "pipeline", train=saved, out=out, stop=35, copy=again), job("gpt", "pipeline", train=saved, out=out)]
    jobs += [job("seq2seq", "pipeline", fails=True), job("gpt", "pipeline", train={"accumulate": 1}, fails=True)]
    found = answers(2, jobs, tmp_path)
    for one, wanted in zip(found[:4], jobs):
        same(one, alone(wanted))
    fewer = answer(job("gpt", train=saved, out=again))
    for one in (found[5], fewer):
        assert one["resumed_from"] == 30
        same(one, alone(job("gpt", train=saved)))
    assert "it has 2 stacks ('encoder.', 'decoder.'), and stages are cut from one" in found[6]["error"]
    assert "2 stages need as many micro-batches at least, and accumulate is 1" in found[7]["error"]


@pytest.mark.full
def test_what_is_recomputed_or_compiled_is_the_same(tmp_path: Path) -> None:
    short = {"steps": 5}
    jobs = [job("gpt", kind, train=short) for kind in ("ddp", "fsdp", "tp", "pipeline")]
    for one in jobs:
        one["train"]["parallel"]["recompute"] = True
    jobs += [job("gpt", kind, train=short) for kind in ("ddp", "fsdp")]
    for one in jobs[-2:]:
        one["train"]["parallel"]["compile"] = True
    for found, wanted in zip(answers(2, jobs, tmp_path), jobs, strict=True):
        same(found, alone(wanted))


@pytest.mark.full
def test_four_processes_then_two_then_one_and_parts_of_uneven_parts(tmp_path: Path) -> None:
    saved = WIDE | {"save_every": 10}
    odd = {"d_mlp": 22}  # 11 hidden units for each of two, of which two have 6 and 5
    out, again = str(tmp_path / "out"), str(tmp_path / "again")
    four = [job("gpt", "fsdp", tp=2, train=saved, out=out, stop=15), job("gpt", "fsdp", train=saved, out=out, stop=15)]
    two = [job("gpt", "tp", train=saved, out=out, stop=15, copy=again), job("gpt", "ddp", train=saved, out=out)]
    last = job("gpt", train=saved, out=again)
    for one in (*four, *two, last):
        one["config"] = odd
    assert [one["stopped"] for one in answers(4, four, tmp_path / "four")] == ["enough", "enough"]
    found = answers(2, two, tmp_path / "two")
    expected = alone(last)
    for one in (found[1], answer(last)):
        assert one["resumed_from"] == 30
        same(one, expected)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_other_dtypes_by_the_table(kind: str, tmp_path: Path) -> None:
    """Losses of the first steps: later ones differ by what training makes of a rounding."""
    short = {"steps": 4, "validate_every": 0}
    jobs = [job("gpt", kind, dtype="float32", train=short), job("gpt", kind, dtype="float32", train=short | {"precision": "bf16"}),
            job("gpt", kind, dtype="float32", train=short | {"precision": "fp16"})]  # fmt: skip
    for found, wanted, dtype in zip(answers(2, jobs, tmp_path), jobs, (torch.float32, torch.bfloat16, torch.float16), strict=True):
        bound = tolerance(dtype, "loglik" if dtype == torch.float32 else "logits").bound
        # Losses alone: which steps float16 skips depends on what overflows in one process.
        assert max(abs(a - b) for a, b in zip(found["losses"], alone(wanted)["losses"], strict=True)) <= bound
