"""Model references: one grammar everywhere.

    path/to/checkpoint      run:ID (or run:last)      run:AUDIT/mended-1 (what an audit's first mitigation made)
    organism:NAME[@dose=0.8,seed=1]      family:NAME (tiny, untrained)
    hf:FOLDER_OR_NAME (as transformers writes it)      tl:FOLDER_OR_NAME (through TransformerLens)
    compiled:FOLDER (its circuit is known)      endpoint:MODEL@URL[#form=text,logprobs=true] (an OpenAI-compatible server)

A loaded model carries its reference as ``name``, which results keep in their provenance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from workbench.adapters import compiled, endpoint
from workbench.core.errors import BadValue, MissingFile, UnknownName, UsageError, nearest
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.families import FAMILIES
from workbench.lab.published import bridged, published
from workbench.organisms import ORGANISMS
from workbench.organisms.organism import Organism
from workbench.store.records import RunRecord
from workbench.store.runs import Store
from workbench.training.checkpoint import LATEST, MANIFEST, load_model, pointed
from workbench.training.lock import alone
from workbench.training.loop import FINAL

SCHEMES = ("run", "organism", "family", "hf", "tl", "compiled", "endpoint")
TOWN = "town"
MENDED = "mended-"
"""What the parts of an audit that a mitigation made are called, before their number."""
ALLOWED = (
    "a checkpoint folder, run:ID, organism:NAME[@option=value,…], family:NAME, hf:FOLDER_OR_NAME, tl:FOLDER_OR_NAME, "
    "compiled:FOLDER, run:AUDIT/mended-NUMBER, or endpoint:MODEL@URL[#option=value,…]"
)
_FORM = re.compile(r"(?P<scheme>[a-z_]+):(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """A reference taken apart: ``scheme`` (``path``, ``run``, ``organism``), ``name``, and ``options`` after the @."""

    scheme: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


def parse(text: str) -> Reference:
    """``text`` taken apart; nothing is loaded. What is there as a folder is a path, whatever it looks like."""
    return Reference("path", text) if text.strip() and _is_there(text) else by_grammar(text)


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # longer than any path may be
        return False


def by_grammar(text: str) -> Reference:
    """``text`` taken apart by what it says alone, whatever is on this disk: for a reference that a stranger wrote."""
    if not text.strip():
        raise BadValue("the model reference", text, ALLOWED)
    match = _FORM.fullmatch(text)
    if match is None:
        return Reference("path", text)
    scheme, rest = match["scheme"], match["rest"]
    if scheme not in SCHEMES:
        raise UnknownName("form of model reference", f"{scheme}:", [f"{known}:" for known in SCHEMES], hint=f"Allowed: {ALLOWED}.")
    if scheme == "endpoint":
        name, sign, options = rest.partition("#")
        return Reference(scheme, name, _options(f"{scheme}:{name.partition('@')[0]}", options) if sign else {})
    name, sign, options = rest.partition("@")
    if not name or (sign and scheme != "organism"):
        raise BadValue("the model reference", text, ALLOWED)
    return Reference(scheme, name, _options(text, options) if sign else {})


def load(ref: str | HookedModel, *, store: Store | None = None, progress: Progress = silent) -> HookedModel:
    """The model behind a reference, in evaluation mode; a model is passed through.

    ``store`` is where ``run:`` looks and organisms are kept (default: the environment's). Raises UsageError, MissingFile, CorruptFile.
    """
    if not isinstance(ref, str):
        return ref
    wanted = parse(ref)
    model = _LOADERS[wanted.scheme](wanted, store, progress)
    model.name = reference_of(ref, store)  # type: ignore[attr-defined]  # what results call the model by; not part of its digest
    return model


def reference_of(model: str | HookedModel, store: Store | None = None) -> str:
    """The lasting reference of a model: ``run:last`` and beginnings of ids become the whole id; ``memory:DIGEST`` for a model
    that was made in this process."""
    if not isinstance(model, str):
        return getattr(model, "name", "") or f"memory:{model.digest()[:16]}"
    wanted = parse(model)
    if wanted.scheme != "run":
        return model
    if (found := mended_of(model, store)) is not None:
        return f"run:{found.audit.id}/{found.part}"
    return f"run:{_training(wanted.name, store)[1]}"


# --- one loader a scheme ------------------------------------------------------------------------------------


def _from_path(wanted: Reference, store: Store | None, progress: Progress) -> HookedModel:
    folder = Path(wanted.name)
    if not folder.exists():
        there = sorted(p.name for p in folder.parent.iterdir() if not p.name.startswith(".")) if folder.parent.is_dir() else []
        close = nearest(folder.name, there)
        nearby = f" Nearest there: {', '.join(str(folder.parent / name) for name in close)}." if close else ""
        raise MissingFile(wanted.name, "model checkpoint", do=f"Allowed: {ALLOWED}.{nearby}")
    return load_model(final_of(folder))


def _from_run(wanted: Reference, store: Store | None, progress: Progress) -> HookedModel:
    return load_model(folder_of(f"run:{wanted.name}", store))


def folder_of(ref: str, store: Store | None = None) -> Path:
    """The checkpoint behind ``run:ID`` or ``run:AUDIT/PART``."""
    if (found := mended_of(ref, store)) is not None:
        return found.folder
    home, run = _training(parse(ref).name, store)
    return final_of(checkpoint_of(home, run))


def _training(name: str, store: Store | None) -> tuple[Store, str]:
    """The store and the id of the training run ``name``; ``last`` is the newest with a checkpoint."""
    home = store if store is not None else Store.open(create=False)
    trained = [one.id for one in home.runs.list(kind="train") if checkpoint_of(home, one.id).exists()]
    run = trained[0] if name == "last" and trained else home.runs.get(name).id
    if run not in trained:
        raise UnknownName("trained model", f"run:{run}", [f"run:{one}" for one in trained], hint="That run left no checkpoint.")
    return home, run


@dataclass(frozen=True)
class Mended:
    """A model that a mitigation of an audit made: ``part`` as in its report, ``folder`` its checkpoint."""

    audit: RunRecord
    part: str
    folder: Path

    @property
    def audited(self) -> str:
        """The reference of the model that was mended."""
        return str(self.audit.spec["model"])

    @property
    def method(self) -> str:
        return str(self.audit.spec["mitigations"][int(self.part.removeprefix(MENDED)) - 1]["method"])


def mended_of(ref: str, store: Store | None = None) -> Mended | None:
    """What ``run:AUDIT/PART`` names; None for a reference of any other form. Raises UnknownName where the run keeps no such model."""
    if ref.startswith("memory:") or (wanted := parse(ref)).scheme != "run" or "/" not in wanted.name:
        return None
    home = store if store is not None else Store.open(create=False)
    run, _, part = wanted.name.partition("/")
    audits = (one for one in home.runs.list(kind="audit") if part in mended_in(home, one.id))
    record = next(audits, None) if run == "last" else home.runs.get(run)
    kept = [] if record is None else mended_in(home, record.id)
    if record is None or part not in kept:
        there = [f"run:{run if record is None else record.id}/{one}" for one in kept]
        hint = "An audit keeps what a mitigation of its plan made, unless its report says why not."
        raise UnknownName("mended model", ref, there, hint=hint)
    return Mended(record, part, home.folder(record.id) / part)


def mended_in(store: Store, run: str) -> list[str]:
    """The parts of an audit whose mended models it keeps."""
    return sorted(place.parent.name for place in store.folder(run).glob(f"{MENDED}*/{MANIFEST}"))


def _made_from(ref: str, store: Store | None) -> str:
    """The reference whose training data are this model's: of a mended model, that of the model that was mended. Raises UsageError where
    that leads back to a model it came from, as a stored plan with ``run:last/PART`` does."""
    seen: list[str] = []
    while (found := mended_of(ref, store)) is not None:
        seen.append(f"run:{found.audit.id}/{found.part}")
        if seen[-1] in seen[:-1]:
            raise UsageError(
                f"What '{seen[0]}' was mended from cannot be told: the plan of audit {found.audit.id} names '{found.audited}', which is "
                f"now what it made itself. Audit that model again by its whole reference, run:AUDIT/{MENDED}NUMBER."
            )
        ref = found.audited
    return ref


def _from_organism(wanted: Reference, store: Store | None, progress: Progress) -> HookedModel:
    organism = ORGANISMS.load(wanted.name)
    recipe = organism.configure(wanted.options)
    home = (store if store is not None else Store.open()).home / "organisms"
    folder = home / f"{wanted.name}-{recipe.digest()[:16]}"
    with alone(home / f"{folder.name}.lock"):
        return organism.build(recipe, folder, progress=progress)


def _from_family(wanted: Reference, store: Store | None, progress: Progress) -> HookedModel:
    return FAMILIES.load(wanted.name).tiny(seed=0)[0].eval()


def _from_tl(wanted: Reference, store: Store | None, progress: Progress) -> HookedModel:
    return bridged(wanted.name)


def _from_compiled(wanted: Reference, store: Store | None, progress: Progress) -> HookedModel:
    return compiled.load(wanted.name)


def _from_hf(wanted: Reference, store: Store | None, progress: Progress) -> HookedModel:
    return published(wanted.name)


def _from_endpoint(wanted: Reference, store: Store | None, progress: Progress) -> Any:
    return endpoint.load(wanted.name, **wanted.options)


_LOADERS: Mapping[str, Callable[[Reference, Store | None, Progress], Any]] = {
    "path": _from_path,
    "run": _from_run,
    "organism": _from_organism,
    "family": _from_family,
    "tl": _from_tl,
    "compiled": _from_compiled,
    "endpoint": _from_endpoint,
    "hf": _from_hf,
}


def final_of(folder: Path) -> Path:
    """The checkpoint in ``folder``: itself, or what a training left in it (the final model, else the latest step)."""
    if (folder / MANIFEST).is_file():
        return folder
    if (folder / FINAL).is_dir():
        return folder / FINAL
    return pointed(folder, LATEST) or folder


def checkpoint_of(store: Store, run: str) -> Path:
    """Where a training run keeps its checkpoints."""
    return store.home / "runs" / run / "checkpoints"


def world_of(ref: str, store: Store | None = None, domain: str = TOWN) -> dict[str, Any] | None:
    """The spec of the town a model was trained on, as plain values, or of the world of another ``domain``; None where the reference does
    not tell or it was no such world."""
    found = organism_of(_made_from(ref, store), store)
    return found[1].model_dump(mode="json").get("world") if found is not None and found[0].domain == domain else None


READ = {"vit": "images", "whisper": "sounds", "clip": "captioned images", "dalle": "captioned images", "imagen": "captioned images"}
"""What families that read no plain text read, as cards name it."""


def domain_of(ref: str, store: Store | None = None, family: str = "") -> str:
    """What a model's inputs are made of, as cards name it; where the reference does not tell what its ``family`` reads, else ``text``."""
    found = organism_of(_made_from(ref, store), store)
    return found[0].domain if found is not None else READ.get(family, "text")


def organism_of(ref: str, store: Store | None = None) -> tuple[Organism, Any] | None:
    """The organism behind a reference with its full recipe, also of one that was trained as a run; None where it is none, or was mended."""
    if ref.startswith("memory:") or mended_of(ref, store) is not None:
        return None
    wanted = parse(ref)
    if wanted.scheme == "organism":
        organism = ORGANISMS.load(wanted.name)
        return organism, organism.configure(wanted.options)
    if wanted.scheme == "run":
        home, run = _training(wanted.name, store)
        spec = home.runs.get(run).spec
        if "organism" in spec and "made" in spec:
            organism = ORGANISMS.load(spec["organism"])
            return organism, type(organism.configure()).parse(spec["made"], what=f"the recipe of run {run}")
    return None


def task_of(ref: str, store: Store | None = None) -> dict[str, Any] | None:
    """The task a model was trained for, with its data's spec, as plain values; None where the reference does not tell."""
    ref = _made_from(ref, store)
    if ref.startswith("memory:") or parse(ref).scheme != "run":
        return None
    home, run = _training(parse(ref).name, store)
    spec = home.runs.get(run).spec
    return {"task": spec["task"], "data": spec["data"]} if "task" in spec else None


def _options(text: str, options: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for part in options.split(","):
        name, sign, value = part.partition("=")
        if not sign or not name.strip() or name.strip() in out:
            raise BadValue("the model reference", text, f"{ALLOWED}, with each option once as name=value")
        try:
            out[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise BadValue("the model reference", text, f"{ALLOWED}, with values that are YAML") from None
    return out
