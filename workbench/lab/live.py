"""Looking at a model by hand: what the live page asks, answered at once and kept nowhere.

A look makes no run, since a page asks again at every touch; ``again`` gives the command that makes one. Only models that are
there already are offered: an organism that was never trained would train inside the page.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from probes import INSTRUMENTS
from workbench.core.charts import palette
from workbench.core.charts.frame import altair, data, headline
from workbench.core.charts.heat import shown
from workbench.core.errors import AssayError, BadValue, Incompatible, MissingFile, UsageError
from workbench.core.protocol import HookedModel, Inputs
from workbench.core.result import Provenance, Result
from workbench.engine.threads import processors
from workbench.lab.inputs import InputsSpec, encoded, from_texts, make_inputs
from workbench.lab.refs import checkpoint_of, final_of, folder_of, load, parse, reference_of
from workbench.lab.run import with_origin
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store
from workbench.training.checkpoint import MANIFEST
from workbench.training.loop import FINAL

_SIGNS = str.maketrans({"↵": "\n", "⇥": "\t", "␍": "\r"})  # the inverse of charts.heat.shown
ATTENTION, ATTRIBUTION = "attention-pattern", "integrated-gradients"
TITLES = {"next-tokens": "Next token", "answers": "Answers"}


def leave_a_core() -> None:
    """Let torch use all cores but one, from now on, in this process: where the browser that draws runs beside it, threads that wait for one
    another on a taken core make a run several times as long."""
    torch.set_num_threads(max(1, min(torch.get_num_threads(), processors() - 1)))


# --- which models -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A model that can be opened now: its reference, and what it is in a few words."""

    ref: str
    words: str


def choices(store: Store) -> tuple[Choice, ...]:
    """The trainings that left a checkpoint and the organisms that runs of this store used and that are trained, newest first."""
    out: dict[str, Choice] = {}
    for run in store.runs.list():
        named = [run.ref, run.spec.get("model"), run.spec.get("reference")]
        refs = {ref: "organism" for ref in named if isinstance(ref, str) and ref.startswith("organism:")}
        if run.kind == "train" and checkpoint_of(store, run.id).is_dir():
            refs = {f"run:{run.id}": f"{run.ref.removeprefix('recipe:')}, {run.created[:10]}, {run.status}"}
        for ref, words in refs.items():
            if ref not in out and _is_there(ref, store):
                out[ref] = Choice(ref, words)
    return tuple(out.values())


def fingerprint(ref: str, store: Store | None) -> str:
    """sha256 (hex) of the checkpoint's manifest: another one means other weights. '' for what lies in no folder.

    ``store`` None: there is none, so only paths can be meant. Raises UsageError for a reference that cannot be meant, MissingFile
    for a model that is not there, and StoreError for a run where there is no store.
    """
    if parse(ref).scheme == "family":
        return ""
    if parse(ref).scheme != "path" and store is None:
        store = Store.open(create=False)
    manifest = _folder(ref, store) / MANIFEST
    if manifest.is_file():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    if parse(ref).scheme == "organism":
        raise MissingFile(ref, "trained organism", do=f"Training takes minutes: run `workbench models show {shlex.quote(ref)}` first.")
    load(ref, store=store)  # says what is wrong in its own words
    raise MissingFile(manifest, "checkpoint manifest")


def _is_there(ref: str, store: Store) -> bool:
    """Whether it can be opened now; what an earlier version called a model may mean nothing to this one."""
    try:
        return (_folder(ref, store) / MANIFEST).is_file()
    except AssayError:
        return False


def _folder(ref: str, store: Store | None) -> Path:
    """Where the checkpoint behind a reference lies, or would lie."""
    wanted = parse(ref)
    if store is None or wanted.scheme == "path":
        return final_of(Path(wanted.name))
    if wanted.scheme == "run":
        return folder_of(ref, store)
    if wanted.scheme == "organism":
        recipe = ORGANISMS.load(wanted.name).configure(wanted.options)
        return store.home / "organisms" / f"{wanted.name}-{recipe.digest()[:16]}" / FINAL  # a half-trained one would be trained on
    return Path()  # a tiny model of a family, which is made and lies nowhere


@dataclass(frozen=True)
class Shape:
    """What the page offers to choose from: layers and heads with a pattern, and the longest prompt in tokens (0: unbounded)."""

    layers: tuple[int, ...]
    heads: int
    context: int


def shape_of(model: HookedModel) -> Shape:
    """The model's layers, heads and context. Raises Incompatible where it has no attention patterns."""
    if reasons := INSTRUMENTS.load(ATTENTION).explain_incompatibility(model):
        raise Incompatible("the live page", f"this {model.family} model", reasons)
    patterns = [site for site in model.sites().values() if site.tensor == "hook_pattern" and site.layer is not None]
    layers = tuple(sorted({site.layer for site in patterns if site.layer is not None}))
    return Shape(layers, int(getattr(model.config, "n_heads", 1)), int(getattr(model.config, "n_ctx", 0)))


def heads_in(model: HookedModel, stack: str = "") -> int:
    """How many heads a layer of a stack has."""
    found = next(site for site in model.sites().values() if site.tensor == "hook_pattern" and site.stack == stack)
    return int(model.weight(f"{found.name.removesuffix('hook_pattern')}W_Q").shape[0])


# --- what is asked ------------------------------------------------------------------------------------------


def ask(
    model: HookedModel, instrument: str, text: str | Inputs, *, target: str = "", foil: str = "", corrupt: str = "", **fields: Any
) -> Result:
    """One instrument on one text, with its ``corrupt`` twin where it compares two; an instrument of weights alone is given none. Or on
    ``Inputs`` that are ready, such as a row of ``lab.rows``. Raises UsageError and Incompatible, as ``lab.run.probe`` does; nothing is
    stored."""
    tool = INSTRUMENTS.load(instrument)
    spec = tool.spec.parse(fields, what=f"instrument '{instrument}'")
    if reasons := tool.explain_incompatibility(model):
        raise Incompatible(instrument, f"this {model.family} model", reasons)
    if isinstance(text, Inputs):
        return with_origin(tool(model, text, spec), model=reference_of(model))
    given: dict[str, Any] = {"weights": True}
    if tool.needs.inputs:
        tokens_of(model, text)
        named = {"targets": target, "foils": foil, "corrupt": corrupt}
        given = {"texts": [text], **{name: [one] if one else [] for name, one in named.items()}}
    inputs = make_inputs(tool, model, InputsSpec.of(given), spec)
    return with_origin(tool(model, inputs, spec), model=reference_of(model))


def again(instrument: str, ref: str, text: str, *, target: str = "", foil: str = "", corrupt: str = "", **fields: Any) -> str:
    """The command that asks the same and keeps the answer as a run."""
    words = ["workbench", "probe", instrument, "--model", ref]
    named = (("--text", text), ("--target", target), ("--foil", foil)) if INSTRUMENTS.load(instrument).needs.inputs else ()
    words += [part for name, value in named if value for part in (name, value)]
    words += ["--set", f"inputs.corrupt={corrupt}"] if corrupt and named else []
    words += [part for name, value in fields.items() for part in ("--set", f"{name}={_typed(value)}")]
    return shlex.join(words)


def _typed(value: Any) -> str:
    """A field's value as it is typed behind ``--set``."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple | list) else str(value)


@dataclass(frozen=True)
class Tokens:
    """A prompt as the model reads it, a BOS included where there is one."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """One row a token: position, token (spaces visible), id."""
        return pd.DataFrame({"position": range(len(self.ids)), "token": [shown(piece) for piece in self.pieces], "id": self.ids})


def tokens_of(model: HookedModel, text: str) -> Tokens:
    """The prompt's tokens. Raises BadValue for an empty prompt and for one longer than the model's context."""
    if not text:
        raise BadValue("the prompt", text, "of at least one character", do="Type a sentence.")
    ids, _, _ = encoded(model, [text])
    row = ids[0].tolist()
    context = int(getattr(model.config, "n_ctx", 0))
    if context and len(row) > context:
        raise BadValue("the length of the prompt", len(row), f"at most {context} tokens, this model's context", do="Shorten it.")
    assert model.tokenizer is not None  # encoded() has refused a model without
    return Tokens(tuple(row), tuple(model.tokenizer.pieces(row)))


@dataclass(frozen=True)
class NextTokens(Result):
    """What the model expects next: ``probability`` ``[rank]``, most likely first, with ``token_id`` and ``token``; ``rest`` is the
    probability of all other tokens, ``entropy`` that of the whole distribution in bits."""

    def summary(self) -> str:
        first = self.values.isel(rank=0)
        likely, rest = (probability_words(float(value)) for value in (first.probability, self.values.rest))
        return (
            f"After the prompt, '{shown(first.token.item())}' has probability {likely}; all tokens not listed have {rest} together; "
            f"the entropy is {float(self.values.entropy):.2f} bits."
        )

    def plot(self) -> Any:
        """One bar a token with its probability in words."""
        alt = altair()
        frame = self.to_frame()
        names = [shown(token) for token in frame["token"]]
        named = self.kind == "answers" and len(set(names)) == len(names)  # classes and other rows' texts: their numbers say nothing more
        labels = names if named else [f"{name}  ({i})" for name, i in zip(names, frame["token_id"], strict=True)]
        rows = pd.DataFrame({"label": labels, "probability": frame["probability"], "zero": 0.0})
        rows["words"] = [probability_words(p) for p in rows["probability"]]
        axis = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=8, labelFontSize=12)
        base = alt.Chart(data(rows)).encode(y=alt.Y("label:N", sort=labels, axis=axis, title="answer" if named else "token (id)"))
        across = {"title": "probability", "scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f")}
        bars = base.mark_bar(height=14, color=palette.PALETTE[0]).encode(x=alt.X("zero:Q", **across), x2="probability:Q")
        words = base.mark_text(align="left", dx=5, fontSize=11, style="ink").encode(x=alt.X("probability:Q", **across), text="words:N")
        said = ", ".join(f"{shown(t)} {probability_words(p)}" for t, p in zip(frame["token"], frame["probability"], strict=True))
        chart = alt.layer(bars, words)
        return chart.properties(
            width=280, height=alt.Step(22), title=headline(alt, TITLES[self.kind]), description=f"Most likely next: {said}."
        )


@dataclass(frozen=True)
class Answers(NextTokens):
    """The same of a row that is no text: classes, texts of other rows, or the first token written."""

    def summary(self) -> str:
        first = self.values.isel(rank=0)
        return f"The likeliest answer is '{shown(first.token.item())}', with probability {probability_words(float(first.probability))}."


def probability_words(value: float) -> str:
    """Four decimals, and never 0 or 1 for what is not."""
    return "< 0.0001" if 0 < value < 0.00005 else "> 0.9999" if 0.99995 <= value < 1 else f"{value:.4f}"


def next_tokens(model: HookedModel, text: str, *, most: int = 10) -> NextTokens:
    """The ``most`` likely next tokens after ``text``, by softmax in float64."""
    tokens = tokens_of(model, text)
    size = int(getattr(model.config, "d_vocab", most))
    if not 1 <= most <= size:
        raise BadValue("the number of next tokens", most, f"from 1 to {size}, the vocabulary")
    logits = model.run(torch.tensor([tokens.ids]), logits="last").logits
    assert logits is not None
    probability = logits.detach().reshape(-1).double().softmax(-1).cpu()
    top, ids = probability.topk(most)
    entropy = -torch.special.xlogy(probability, probability).sum().item() / math.log(2)
    assert model.tokenizer is not None  # tokens_of() has refused a model without
    pieces = [model.tokenizer.pieces([i])[0] for i in ids.tolist()]
    values = xr.Dataset(
        {
            "probability": ("rank", top.numpy()),
            "token_id": ("rank", ids.numpy()),
            "rest": max(0.0, 1.0 - float(top.sum())),
            "entropy": entropy,
        },
        coords={"rank": np.arange(most), "token": ("rank", np.array(pieces, dtype=object))},
    )
    origin = Provenance.here(model=reference_of(model), model_digest=model.digest())
    return NextTokens(kind="next-tokens", values=values, spec={"text": text, "most": most}, provenance=origin)


def answers(model: HookedModel, text: str, found: NextTokens) -> tuple[str, ...]:
    """The listed tokens that can be named as a target: text that is this one token after the prompt."""
    return tuple(token for token in found.values.token.values.tolist() if _follows(model, text, token))


def typed_token(words: str) -> str:
    """A token as it is shown or typed, as text: ``·`` at either end is a space, and the signs of line end and tab are those."""
    body = words.strip("·")
    left = words[: len(words) - len(words.lstrip("·"))]
    right = words[len(words.rstrip("·")) :] if body else ""
    return (" " * len(left) + body + " " * len(right)).translate(_SIGNS)


def _follows(model: HookedModel, text: str, token: str) -> bool:
    try:
        from_texts(model, [text], [token])
    except UsageError:
        return False
    return bool(token)


# --- results as tables ----------------------------------------------------------------------------------------


def attention_table(result: Result) -> pd.DataFrame:
    """One head's pattern as a square table: a row a query, a column a key, both named ``position token``; where none reads a later key,
    those are empty."""
    item = result.values.pattern.isel(layer=0, head=0, batch=0)
    names = [f"{i} {shown(str(piece))}" for i, piece in enumerate(item.query_token.values)]
    earlier = np.tri(len(names), dtype=bool)
    causal = not bool((item.values[~earlier] > 0).any())
    weights = np.where(earlier, item.values, np.nan) if causal else item.values
    return pd.DataFrame(weights, columns=names).assign(query=names).set_index("query")


def attribution_table(result: Result) -> pd.DataFrame:
    """One row a token: position, token, attribution, and whether it may be ranked."""
    item = result.values.isel(batch=0)
    pieces = [shown(str(piece)) for piece in item.token.values]
    return pd.DataFrame(
        {"position": item.pos.values, "token": pieces, "attribution": item.attribution.values, "ranked": item.candidate.values}
    )


def completeness(result: Result) -> Sequence[str]:
    """How far the attributions add up: the answer, what the baseline gives, the gap, and how many steps it took."""
    item = result.values.isel(batch=0)
    effect = float(item.value) - float(item.baseline_value)
    total = float(np.nansum(item.attribution.values))
    share = f" ({abs(float(item.gap) / effect):.2%} of it)" if effect else ""
    return (
        f"The answer is {float(item.value):.4g} and {float(item.baseline_value):.4g} at the baseline: the effect is {effect:.4g}.",
        f"The attributions add up to {total:.4g}; the completeness gap is {float(item.gap):.2g}{share} after {int(item.steps)} steps.",
        *([] if bool(item.converged) else ["The gap is above the tolerance: these attributions do not add up to the effect."]),
        *result.notes,
    )
