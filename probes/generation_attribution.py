"""Attribution of a whole generation: for each token a model writes, what it was read from.

Each written token is asked about with one of the attribution methods, at the moment it was written: the inputs are the prompt (or, of an
encoder-decoder, the source and what the decoder began from) and the tokens written before it. So a row is, number by number, what that
method's instrument gives for that one token.

An encoder-decoder has two stacks of inputs. They are asked one after the other, each with the other held as it is: attributions of source
and of written tokens each account for their own change of the answer, and need not add up to one effect together.

Source: the methods' own pages; of one row a generated token, Li, Chen, Hovy and Jurafsky 2016 (arXiv:1506.01066), and Sarti and
others, Inseq, ACL 2023 (arXiv:2302.13942).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from probes import INSTRUMENTS
from probes.attribution import AttributionResult
from probes.generation_result import BY_POSITION, BY_QUESTION, GenerationAttributionResult
from probes.places import last_stack, names_of, stack_of, stacks_of
from probes.quality_stability import Stood
from probes.target import Quantity, model_dtype
from probes.token_items import origin
from probes.written import Begun, Written, begin, pieces_of, write
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.spec import Spec

Method = Literal[
    "integrated-gradients", "input-x-gradient", "saliency", "occlusion", "shapley", "gradient-shap", "deep-lift", "smooth-grad"
]
SHARED = ("quantity", "position", "stack", "bos", "tokens_a_pass")
"""Fields of a method's spec that are set here."""


class GenerationAttributionSpec(Spec):
    """What is written, and how each written token is explained."""

    method: Method = Field(default="input-x-gradient", description="the attribution, by its name in the catalogue")
    settings: dict[str, Any] = Field(default={}, description="fields of the method's own spec")
    most: int = Field(default=16, ge=1, description="tokens written at most, where none are given")
    end: int | None = Field(default=None, description="the id an item ends with; None is the tokenizer's, where it has one")
    quantity: Quantity = Field(default="logit", description="the scalar explained; 'logit-difference': against the likeliest other token")
    stack: str = Field(default="", description="whose inputs are asked about, in a family of several stacks; '' is all of them")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=20_000_000, ge=1, description="numbers kept at most")
    tokens_a_pass: int = Field(default=4096, ge=1, description="tokens in one forward pass at most")


@dataclass(frozen=True)
class Layout:
    """The columns of the result: the positions of each stack asked about, one stack after the other.

    ``first`` the column where each stack begins; ``stack`` and ``place`` ``[pos]``; ``token`` and ``written`` ``[batch, pos]``: what stands
    there, and whether the model wrote it.
    """

    first: dict[str, int]
    stack: np.ndarray
    place: np.ndarray
    token: np.ndarray
    written: np.ndarray


def compute(model: HookedModel, inputs: Inputs, spec: GenerationAttributionSpec, progress: Progress) -> GenerationAttributionResult:
    """A row of attributions for every token written. Raises BadValue for inputs that cannot be meant, and what the method raises."""
    for name in ("labels", "reference", "groups"):
        if getattr(inputs, name) is not None:
            raise BadValue(f"inputs.{name}", "given", "left out: tokens that are not written yet have none")
    if twice := sorted(set(spec.settings) & set(SHARED)):
        raise BadValue("settings", twice, "without what this spec says itself", do=f"Give {', '.join(twice)} beside `method`.")
    if inputs.foils is not None and spec.quantity != "logit-difference":
        raise BadValue(
            "inputs.foils", "given", f"left out for the quantity '{spec.quantity}'", do="Ask for 'logit-difference' to use them."
        )
    begun = begin(model, inputs, bos=spec.bos)
    stacks = _stacks(model, begun, spec.stack)
    tool = INSTRUMENTS.load(spec.method)
    own = {stack: _spec_of(tool, spec, stack) for stack in stacks}
    end = spec.end if spec.end is not None else getattr(model.tokenizer, "eos_id", None)
    written = write(begun, inputs, most=spec.most, end=end, tokens_a_pass=spec.tokens_a_pass)
    layout = _layout(model, begun, written, stacks)
    shape = (*written.ids.shape, len(layout.place))
    if (cells := int(np.prod(shape))) > spec.max_cells:
        raise BadValue(
            "the size of the attribution", f"{cells:,} numbers", f"at most max_cells = {spec.max_cells:,}", do="Ask fewer items."
        )
    found = _attributions(tool, own, begun, written, layout, spec, progress)
    return GenerationAttributionResult(
        kind=INSTRUMENT.name,
        values=_dataset(model, written, layout, found.arrays),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.settings.get("seed"), dtype=model_dtype(model), written=written.ids, foils=written.foils,
                          **_data(begun)),
        notes=(*_notes(begun, inputs, stacks, end), *found.notes),
    )  # fmt: skip


def _spec_of(tool: Instrument, spec: GenerationAttributionSpec, stack: str) -> Spec:
    said = {"quantity": spec.quantity, "stack": stack, "bos": spec.bos, "tokens_a_pass": spec.tokens_a_pass}
    return tool.spec.parse({**said, **spec.settings}, what=f"settings of {spec.method}")


def _stacks(model: HookedModel, begun: Begun, asked: str) -> list[str]:
    return [stack_of(model, asked)] if asked or begun.prompts is not None else stacks_of(model)


# --- asking ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """Arrays ``[batch, generated(, pos)]`` by name, and what the method said once."""

    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...]


def _attributions(
    tool: Instrument,
    own: dict[str, Spec],
    begun: Begun,
    written: Written,
    layout: Layout,
    spec: GenerationAttributionSpec,
    progress: Progress,
) -> Found:
    shape = (*written.ids.shape, len(layout.place))
    arrays = {name: np.full(shape, np.nan) for name in ("attribution", *BY_POSITION, *BY_QUESTION)}
    arrays |= {name: np.zeros(shape, dtype=bool) for name in ("is_input", "candidate")}
    arrays["value"] = np.full(shape[:2], np.nan)
    seen: dict[str, None] = {}
    model: Any = Stood(begun.model, "")  # the weights are hashed once, for the whole
    steps = shape[1]
    for step in range(steps):
        rows = (written.ids[:, step] >= 0).nonzero()[:, 0]
        foils = written.foils[rows, step] if spec.quantity == "logit-difference" else None
        given = begun.read(rows, written.ids[rows, :step])
        for stack, fields in own.items():
            asked = Inputs(given.batch, given.lengths, targets=written.ids[rows, step], foils=foils)
            result = tool(model, asked, fields)
            assert isinstance(result, AttributionResult)
            _put(arrays, result.values, rows.numpy(), step, layout.first[stack])
            seen |= dict.fromkeys(result.notes) if step == 0 else {}
        progress(step + 1, steps, "tokens written")
    return Found(arrays, tuple(seen))


def _put(arrays: dict[str, np.ndarray], values: xr.Dataset, rows: np.ndarray, step: int, first: int) -> None:
    """What a method said of the token ``step`` of the items ``rows``, from the column ``first`` on."""
    here = slice(first, first + values.sizes["pos"])
    arrays["value"][rows, step] = values.value.values
    arrays["is_input"][rows, step, here] = values.is_token.values
    for name in ("attribution", "candidate", *BY_POSITION):
        if name in values:
            arrays[name][rows, step, here] = values[name].values
    for name in BY_QUESTION:
        if name in values:
            said = values[name].values.astype(np.float64)
            arrays[name][rows, step, here] = np.where(values.is_token.values, said[:, None], np.nan)


# --- the result's columns -----------------------------------------------------------------------------------


def _layout(model: HookedModel, begun: Begun, written: Written, stacks: list[str]) -> Layout:
    parts = [_columns(model, begun, written, stack) for stack in stacks]
    sizes = [token.shape[1] for token, _ in parts]
    return Layout(
        dict(zip(stacks, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True)),
        np.repeat(np.array(stacks, dtype=object), sizes),
        np.concatenate([np.arange(size) for size in sizes]),
        np.concatenate([token for token, _ in parts], axis=1),
        np.concatenate([own for _, own in parts], axis=1),
    )


def _columns(model: HookedModel, begun: Begun, written: Written, stack: str) -> tuple[np.ndarray, np.ndarray]:
    """What stands at a stack's positions ``[batch, pos]`` ('' where nothing does), and whether the model wrote it."""
    if begun.sources is not None and stack != last_stack(model):
        named = names_of(model, begun.sources, stack)
        return named, np.zeros(named.shape, dtype=bool)
    lead, count = begun.lead, written.count - 1  # the last token written is nobody's input
    width = int((lead + count).max())
    token, own = np.full((len(begun), width), "", dtype=object), np.zeros((len(begun), width), dtype=bool)
    for row, (before, after) in enumerate(zip(lead.tolist(), count.tolist(), strict=True)):
        ids = begun.ids[row, :before].tolist() + written.ids[row, :after].tolist()
        token[row, : before + after] = pieces_of(model, ids)
        own[row, before : before + after] = True
    return token, own


def _dataset(model: HookedModel, written: Written, layout: Layout, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    batch, steps = written.ids.shape
    said = np.full((batch, steps), "", dtype=object)
    for row, count in enumerate(written.count.tolist()):
        said[row, :count] = pieces_of(model, written.ids[row, :count].tolist())
    both = ("batch", "generated")
    return xr.Dataset(
        {
            **{name: ((*both, "pos"), array) for name, array in arrays.items() if array.ndim == 3},
            "value": (both, arrays["value"]),
            "logprob": (both, written.logprob),
            "target_id": (both, written.ids.numpy()),
            "foil_id": (both, written.foils.numpy()),
        },
        coords={
            "batch": np.arange(batch),
            "generated": np.arange(steps),
            "pos": np.arange(len(layout.place)),
            "generated_token": (both, said),
            "token": (("batch", "pos"), layout.token),
            "written": (("batch", "pos"), layout.written),
            "stack": ("pos", layout.stack),
            "place": ("pos", layout.place),
        },
    )


def _data(begun: Begun) -> dict[str, Any]:
    if begun.prompts is not None:
        return begun.prompts.data()
    return {f"batch_{name}": value for name, value in vars(begun.sources).items() if name != "targets"}


def _notes(begun: Begun, inputs: Inputs, stacks: list[str], end: int | None) -> tuple[str, ...]:
    out = [begun.prompts.added] if begun.prompts is not None else []
    if inputs.targets is not None:
        out.append("The tokens explained were given: the model need not have written them.")
    else:
        out.append("The tokens explained are the model's own, the likeliest each" + (f", up to the id {end}." if end is not None else "."))
    if len(stacks) > 1:
        words = " and ".join(f"'{stack}'" for stack in stacks)
        out.append(f"The stacks {words} are asked one after the other, the rest held: together they need not add up to one effect.")
    return tuple(out)


INSTRUMENT = Instrument(
    name="generation-attribution",
    question="Of everything a model writes after a prompt, what was each token read from?",
    spec=GenerationAttributionSpec,
    needs=Needs(reads=("tokens", "sequences"), abilities=frozenset({"logits", "edit"}), sites=("*hook_embed",), one_way=True),
    compute=compute,
)
