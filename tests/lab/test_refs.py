"""Model references: one grammar, and every way to miss it said in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from workbench.core.errors import AssayError, BadValue, CorruptFile, MissingFile, UnknownName
from workbench.families.gpt import GPT
from workbench.lab.refs import Reference, by_grammar, load, parse, reference_of, world_of
from workbench.store.runs import Store


def test_references_are_taken_apart() -> None:
    assert parse("some/folder") == Reference("path", "some/folder")
    assert parse("run:abc") == Reference("run", "abc")
    assert parse("organism:town") == Reference("organism", "town")
    assert parse("organism:town@dose=0.5,seed=2,planted=false") == Reference("organism", "town", {"dose": 0.5, "seed": 2, "planted": False})
    assert parse("family:gpt") == Reference("family", "gpt")
    assert parse("endpoint:a/b@http://h/v1#form=text,at_once=2") == Reference("endpoint", "a/b@http://h/v1", {"form": "text", "at_once": 2})


def test_a_folder_that_is_there_is_a_path_whatever_it_looks_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run:abc").mkdir()
    assert parse("run:abc") == Reference("path", "run:abc")
    assert by_grammar("run:abc") == Reference("run", "abc")


def test_a_reference_longer_than_any_path_is_still_taken_apart() -> None:
    assert parse("organism:" + "x" * 5000) == Reference("organism", "x" * 5000)
    assert parse("x" * 5000) == Reference("path", "x" * 5000)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", BadValue, "must be a checkpoint folder, run:ID, organism:NAME"),
        ("run:", BadValue, "must be a checkpoint folder"),
        ("run:x@dose=1", BadValue, "must be a checkpoint folder"),
        ("organism:town@", BadValue, "each option once as name=value"),
        ("organism:town@dose", BadValue, "each option once as name=value"),
        ("organism:town@dose=1,dose=2", BadValue, "each option once"),
        ("organism:town@dose=[", BadValue, "with values that are YAML"),
        ("organsim:town", UnknownName, "Did you mean 'organism:'"),
        ("endpoint:x@http://y#form", BadValue, "each option once as name=value"),
    ],
)
def test_what_is_no_reference_is_refused_before_anything_is_loaded(text: str, error: type[AssayError], words: str) -> None:
    with pytest.raises(error, match=words) as found:
        parse(text)
    assert found.value.exit_code == 64


def test_a_run_is_loaded_by_its_id_its_beginning_and_as_the_last(store: Store, trained: str) -> None:
    store.runs.create("eval", {})  # a newer run, but no training
    models = [load(ref, store=store) for ref in (trained, trained[:-2], "run:last")]
    assert {model.digest() for model in models} == {store.runs.get(trained[4:]).provenance["model_digest"]}
    assert {model.name for model in models} == {trained}  # type: ignore[attr-defined]  # set by load
    assert not any(m.training for m in models if isinstance(m, torch.nn.Module))
    assert reference_of("run:last", store) == trained


def test_a_checkpoint_is_loaded_by_its_path_or_that_of_its_training(store: Store, trained: str) -> None:
    folder = store.home / "runs" / trained[4:] / "checkpoints"
    final, whole = load(str(folder / "final"), store=store), load(str(folder), store=store)
    assert final.digest() == whole.digest() == load(trained, store=store).digest()
    assert load(final) is final


def test_a_run_without_a_model_is_refused(store: Store, trained: str) -> None:
    other = store.runs.create("eval", {})
    with pytest.raises(UnknownName, match=rf"no trained model 'run:{other}'.*That run left no checkpoint"):
        load(f"run:{other}", store=store)
    with pytest.raises(UnknownName, match="no run 'zzz'"):
        load("run:zzz", store=store)


def test_a_path_that_is_not_there_is_named_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(MissingFile, match=r"No model checkpoint at '.*chekpoint'.*Nearest there: .*checkpoint") as error:
        load(str(tmp_path / "chekpoint"))
    assert error.value.exit_code == 3
    with pytest.raises(MissingFile, match=r"checkpoint manifest.*its reference is hf:.*checkpoint"):
        load(str(tmp_path / "checkpoint"))


def test_a_changed_checkpoint_is_refused(store: Store, trained: str) -> None:
    file = store.home / "runs" / trained[4:] / "checkpoints" / "final" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptFile, match="as its manifest says"):
        load(trained, store=store)


def test_misspelt_organisms_families_and_options_are_named(store: Store) -> None:
    with pytest.raises(UnknownName, match="no organism 'twon'. Did you mean 'town'"):
        load("organism:twon", store=store)
    with pytest.raises(UnknownName, match="no family 'gtp'"):
        load("family:gtp", store=store)
    with pytest.raises(UnknownName, match="no field 'doze' in organism:town. Did you mean 'dose'"):
        load("organism:town@doze=1", store=store)
    with pytest.raises(BadValue, match="dose is 3"):
        load("organism:town@dose=3", store=store)


def test_a_model_in_memory_is_called_by_its_digest() -> None:
    model, _ = GPT.tiny(seed=3)
    assert reference_of(model) == f"memory:{model.digest()[:16]}"
    assert world_of(reference_of(model)) is None


def test_the_world_of_a_model_is_known_from_its_reference(store: Store, trained: str) -> None:
    world = world_of(trained, store)
    assert world is not None
    assert world["documents"] == 1500
    assert (world_of("organism:town@dose=0.3", store) or {})["dose"] == 0.3
    assert world_of("family:gpt", store) is None


def test_a_small_organism_is_trained_once_and_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.organisms import ORGANISMS

    built: list[Path] = []
    organism = ORGANISMS.load("town")
    monkeypatch.setattr(type(organism), "build", lambda self, recipe, out, **_: built.append(out) or GPT.tiny(seed=0)[0])
    load("organism:town@dose=0.5", store=store)
    load("organism:town@dose=0.5,seed=0", store=store)
    load("organism:town@dose=0.6", store=store)
    assert built[0] == built[1] != built[2]
    assert built[0].parent == store.home / "organisms"
