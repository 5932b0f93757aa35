"""Training dictionaries beside SAELens: ``python benchmarks/dictionary_speed.py [--rounds N] [--small] [--peer FOLDER]``.

Both train the same shape (256 wide, 4,096 features, 32 active, 2,048 rows a step) on the same rows, vectors of a world of known features,
at the same rate, and are told apart by tokens a second: steps after a warm-up, data in memory, no logging, no dead features (too few rows
for any to count). Each library runs in a process of its own, in turns; a ratio is taken within a round, its interval is a bootstrap of the
median over rounds. Of SAELens's ways for topk (dense or sparse activations) the faster is taken, tried outside the clock. Explained
variance of rows never trained on stands beside, after as many steps from each library's own first weights.

SAELens needs an older TransformerLens than this project, so it has an environment of its own in ``--peer`` (``build/sae-lens`` unless
told), made on the first call: a venv that sees this environment's packages (the same torch) and installs what differs. There a dictionary
written by ``probes.dictionaries.sae_lens`` is loaded by SAELens's own loader, and one that it writes is read back: the largest differences
are told.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apart
import safetensors.torch
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
VERSION = "6.54.12"
THREADS, SEED, LR = 2, 0, 1e-3
SHAPE = {"width": 256, "features": 4096, "k": 32, "rows": 2048, "pool": 32_768, "warm": 3, "steps": 15}
SMALL = {"width": 64, "features": 512, "k": 8, "rows": 512, "pool": 4_096, "warm": 2, "steps": 4}
KINDS = ("topk", "batch-topk")
FLOOR = 1.0


def environment(folder: Path) -> Path:
    """The Python of the peer's environment, made where it is not there yet."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        packages = subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], check=True, capture_output=True, text=True
        )
        (Path(packages.stdout.strip()) / "zz-shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"sae-lens=={VERSION}"], check=True)
    return python


def rows_of(told: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Rows to train on, of mean square 1 a coordinate, and rows held out."""
    found = safetensors.torch.load_file(Path(told["folder"]) / "rows.safetensors")
    return found["pool"], found["held"]


def write_rows(folder: Path, shape: dict[str, int]) -> None:
    from workbench.data.worlds.features import Features, FeaturesSpec

    world = Features(FeaturesSpec.parse({"features": 4 * shape["width"], "width": shape["width"], "active": 8.0}))
    pool, held = world.sample(shape["pool"], 1).rows, world.sample(2048, 0).rows
    scale = pool.square().mean().rsqrt()
    safetensors.torch.save_file({"pool": pool * scale, "held": held * scale}, folder / "rows.safetensors")


def batch(pool: Tensor, rows: int, number: int) -> Tensor:
    """Batch ``number``: views of the pool, so that drawing costs neither side anything."""
    first = number * rows % len(pool)
    return pool[first : first + rows]


def clocked(step: Callable[[Tensor], Any], pool: Tensor, told: dict[str, Any]) -> float:
    """Tokens a second after the warm-up."""
    shape = told["shape"]
    for number in range(shape["warm"]):
        step(batch(pool, shape["rows"], number))
    began = time.perf_counter()
    for number in range(shape["warm"], shape["warm"] + shape["steps"]):
        step(batch(pool, shape["rows"], number))
    return shape["steps"] * shape["rows"] / (time.perf_counter() - began)


def explained(given: Tensor, found: Tensor) -> float:
    return float(1 - (given - found).square().sum() / (given - given.mean(0)).square().sum())


# --- theirs -----------------------------------------------------------------------------------------------------


def theirs(told: dict[str, Any]) -> dict[str, Any]:
    """Tokens a second of SAELens's trainer, by kind and way. Its sparse activations cannot be trained with rescaling by decoder norms."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    pool, held = rows_of(told)
    shape, out = told["shape"], {}
    for kind, sparse in told["ways"]:
        torch.manual_seed(SEED)
        more: dict[str, Any] = {"d_in": shape["width"], "d_sae": shape["features"], "k": shape["k"], "normalize_activations": "none"}
        if kind == "topk":
            sae: Any = TopKTrainingSAE(
                TopKTrainingSAEConfig(**more, use_sparse_activations=sparse, rescale_acts_by_decoder_norm=not sparse)
            )
        else:
            sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**more))
        total = (shape["warm"] + shape["steps"]) * shape["rows"]
        config = SAETrainerConfig(
            total_training_samples=total, train_batch_size_samples=shape["rows"], lr=LR, lr_end=LR, dead_feature_window=10**6
        )
        trainer = SAETrainer(cfg=config, sae=sae, data_provider=iter([]))
        seconds = clocked(lambda x, t=trainer, s=sae: t._train_step(sae=s, sae_in=x), pool, told)
        with torch.no_grad():
            kept = explained(held, sae.decode(sae.encode(held)).to_dense())
        out[f"{kind} {sparse}"] = {"tokens": seconds, "explained": kept}
    return out


def check(told: dict[str, Any]) -> dict[str, float]:
    """A dictionary of ours through SAELens's loader: its features and reconstructions, and the same saved by it."""
    import warnings

    warnings.simplefilter("ignore")
    from sae_lens import SAE

    _, held = rows_of(told)
    for kind in told["kinds"]:
        folder = Path(told["folder"]) / kind
        sae: Any = SAE.load_from_disk(folder)
        with torch.no_grad():
            features = sae.encode(held)
            found = {"features": features.contiguous(), "rebuilt": sae.decode(features).contiguous()}
        safetensors.torch.save_file(found, folder / "theirs.safetensors")
        sae.save_model(folder / "back")
    return {}


# --- ours -------------------------------------------------------------------------------------------------------


def ours(told: dict[str, Any]) -> dict[str, Any]:
    """Tokens a second of our trainer, by kind."""
    from probes.dictionaries.dictionary import Dictionary
    from probes.dictionaries.spec import DictionarySpec, TrainingSpec
    from probes.dictionaries.training import Trainer

    pool, held = rows_of(told)
    shape, out = told["shape"], {}
    for kind in told["kinds"]:
        d = Dictionary(DictionarySpec(kind=kind, d_in=shape["width"], d_sae=shape["features"], k=shape["k"]), seed=SEED)
        trainer = Trainer(d, TrainingSpec(lr=LR, warmup=0, decay=0, normalise="none", dead_after=10**9, steps=10**6))
        tokens = clocked(trainer.take, pool, told)
        with torch.no_grad():
            out[kind] = {"tokens": tokens, "explained": explained(held, d(held))}
    return out


def written(folder: Path, told: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
    """A dictionary of every kind, trained a little and written in SAELens's form; its own features and reconstructions."""
    from probes.dictionaries import sae_lens
    from probes.dictionaries.dictionary import Dictionary
    from probes.dictionaries.spec import DictionarySpec, TrainingSpec
    from probes.dictionaries.training import train

    pool, held = rows_of(told)
    out = {}
    for kind in told["kinds"]:
        d = Dictionary(DictionarySpec(kind=kind, d_in=pool.shape[1], d_sae=256, k=8), seed=SEED)
        train(d, lambda first: (batch(pool, 256, i) for i in range(first, 1000)), TrainingSpec(steps=20, rows=256))
        sae_lens.save(folder / kind, d)
        with torch.no_grad():
            out[kind] = d.encode(held), d(held)
    return out


# --- side by side -------------------------------------------------------------------------------------------------


def alone(python: Path | str, part: str, told: dict[str, Any]) -> Any:
    """One part in a process of its own."""
    return apart.alone(__file__, {"part": part, "threads": told["threads"]}, told, threads=told["threads"], python=python)


def report(rounds: list[tuple[dict[str, Any], dict[str, Any]]], told: dict[str, Any]) -> None:
    """A line for each kind: tokens a second, the ratio with its interval, and what each explains after as many steps."""
    for kind, sparse in told["ways"]:
        slow, fast = [a[f"{kind} {sparse}"] for a, _ in rounds], [b[kind] for _, b in rounds]
        ratios = [b["tokens"] / a["tokens"] for a, b in zip(slow, fast, strict=True)]
        low, high = apart.interval(ratios)
        medians = [statistics.median(one["tokens"] for one in side) for side in (slow, fast)]
        print(f"{kind:12} theirs {medians[0]:9,.0f} tokens/s, ours {medians[1]:9,.0f}; ", end="")
        print(f"ratio {statistics.median(ratios):.1f} [{low:.1f}, {high:.1f}] over {len(ratios)} rounds; floor {FLOOR:g}; ", end="")
        print(f"explained variance theirs {slow[-1]['explained']:.3f}, ours {fast[-1]['explained']:.3f}")


def exchanged(python: Path, folder: Path, told: dict[str, Any]) -> None:
    """Every kind through SAELens and back."""
    from probes.dictionaries import sae_lens

    told = {**told, "kinds": ["topk", "batch-topk", "jumprelu", "gated"]}
    mine = written(folder, told)
    alone(python, "check", told)
    _, held = rows_of(told)
    for kind, (features, rebuilt) in mine.items():
        found = safetensors.torch.load_file(folder / kind / "theirs.safetensors")
        with torch.no_grad():
            back = sae_lens.load(folder / kind / "back")(held)
        gaps = [float((a - b).abs().max()) for a, b in ((features, found["features"]), (rebuilt, found["rebuilt"]), (rebuilt, back))]
        print(
            f"{kind:12} through SAELens's loader: features differ by at most {gaps[0]:.1e}, rows by {gaps[1]:.1e}; and back {gaps[2]:.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Training dictionaries beside SAELens.")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--small", action="store_true", help="a small shape, to try the script")
    parser.add_argument("--peer", type=Path, default=ROOT / "build" / "sae-lens", help="where SAELens's environment is, or is made")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--part", choices=["theirs", "ours", "check"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.part:
        parts: dict[str, Callable[[dict[str, Any]], Any]] = {"theirs": theirs, "ours": ours, "check": check}
        print(json.dumps(parts[given.part](json.load(sys.stdin))))
        return
    python, shape = environment(given.peer), SMALL if given.small else SHAPE
    size = f"{shape['width']} wide, {shape['features']:,} features, {shape['k']} active, {shape['rows']:,} rows a step"
    print(f"torch {torch.__version__}, sae-lens {VERSION}; {given.threads} threads; {size}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder, shape)
        told: dict[str, Any] = {"folder": name, "shape": shape, "threads": given.threads, "kinds": list(KINDS)}
        exchanged(python, folder, told)
        tried = alone(python, "theirs", {**told, "ways": [("topk", False), ("topk", True)]})
        best = max((False, True), key=lambda sparse: tried[f"topk {sparse}"]["tokens"])
        words = ", ".join(f"{way.split()[1]}: {one['tokens']:,.0f} tokens/s" for way, one in tried.items())
        print(f"SAELens's topk with sparse activations {words}", flush=True)
        told["ways"] = [("topk", best), ("batch-topk", False)]
        rounds: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for k in range(given.rounds):
            order = (("theirs", python), ("ours", sys.executable)) if k % 2 else (("ours", sys.executable), ("theirs", python))
            found = {part: alone(where, part, told) for part, where in order}
            rounds.append((found["theirs"], found["ours"]))
    report(rounds, told)


if __name__ == "__main__":
    main()
