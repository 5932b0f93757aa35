"""What an instrument and a suite are made of: needs, requests, samples, scores.

An instrument is a value: a spec class, what it needs of a model, and one compute function. A suite is a set of
samples with a scorer. Both state what they need, and incompatibility is a list of sentences, never a silent skip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from workbench.core.errors import AssayError, BadValue, Incompatible
from workbench.core.protocol import HookedModel, Inputs, Progress, Tokenizer, silent
from workbench.core.result import Result
from workbench.core.spec import Spec


@dataclass(frozen=True)
class Needs:
    """What must hold before an instrument or suite may run.

    ``abilities`` of the model; ``sites`` patterns that must match; ``additive`` residual stream; ``inputs`` names the fields of ``Inputs``
    that must be given; ``tokenizer`` where text is used; ``reads`` what the model must read (empty: anything); ``one_way`` where no token
    may read what comes after it; ``one_stack`` where all layers must be of one stack; ``families`` restricts (empty: any). ``unless``: an
    input that is not needed where a field of the spec has some value, ``{"targets": ("quantity", "kl")}``. ``reference``: what
    ``Inputs.reference`` holds where it is asked for in words: another text for each (``texts``), other ``models``, or what the model was
    trained on (``training``); '' leaves it to the spec's fields. ``trees``: labels are the head of every word. ``whole``: labels are one an
    item.
    """

    abilities: frozenset[str] = frozenset()
    sites: tuple[str, ...] = ()
    additive: bool = False
    inputs: tuple[str, ...] = ("batch",)
    tokenizer: bool = False
    reads: tuple[str, ...] = ()
    one_way: bool = False
    one_stack: bool = False
    families: tuple[str, ...] = ()
    unless: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    reference: Literal["", "texts", "models", "training"] = ""
    trees: bool = False
    whole: bool = False

    def given(self, spec: Spec) -> tuple[str, ...]:
        """The fields of ``Inputs`` that must be given under ``spec``."""
        spared = {name for name, (asked, value) in self.unless.items() if getattr(spec, asked, None) == value}
        return tuple(name for name in self.inputs if name not in spared)

    def objections(self, model: HookedModel) -> list[str]:
        """Why ``model`` cannot be asked: a list of clauses, empty when it can."""
        out: list[str] = []
        if self.families and model.family not in self.families:
            out.append(f"it is defined for {', '.join(self.families)}, and this is a {model.family} model")
        reads = getattr(model, "reads", "tokens")
        if self.reads and reads not in self.reads:
            return [*out, f"it reads {' or '.join(self.reads)}, and this {model.family} model reads {reads}"]
        if self.one_way and getattr(model, "both_ways", False):
            out.append("its tokens read what comes after them, and the padding of shorter items with it")
        if missing := sorted(self.abilities - model.abilities):
            why = [f"{name}: {words}" for name, words in getattr(model, "why_not", {}).items() if name in missing]
            out.append(f"the model does not offer {', '.join(missing)}" + (f" ({'; '.join(why)})" if why else ""))
        if self.tokenizer and model.tokenizer is None and not isinstance(model, Answering):
            out.append("the model has no tokenizer")
        stacks = list(dict.fromkeys(site.stack for site in model.sites().values() if site.layer is not None)) if self.one_stack else []
        if len(stacks) > 1:
            return [*out, f"its layers are in {len(stacks)} stacks ({', '.join(stacks)}), and what is asked is within one"]
        if self.sites or self.additive:
            table = model.sites()
            for pattern in self.sites:
                try:
                    table.select(pattern)
                except Exception as error:
                    out.append(str(error).rstrip("."))
            if self.additive and not table.additive:
                out.append("its residual stream is not additive (a norm follows the add)")
        return out


@dataclass(frozen=True)
class Instrument:
    """One question that can be asked of a model.

    ``compute(model, inputs, spec, progress)`` returns a Result; ``floors`` name what it must reach on a planted model
    (``{"organism": "town", "hit_rate": 0.9}``). ``items``: how many items of a world it is asked about unless told (0: the usual).
    Calling the instrument checks the needs first.
    """

    name: str
    question: str
    spec: type[Spec]
    needs: Needs
    compute: Callable[[HookedModel, Inputs, Any, Progress], Result]
    floors: Mapping[str, Any] = field(default_factory=dict)
    items: int = 0

    def explain_incompatibility(self, model: HookedModel) -> list[str]:
        """Clauses that say why this model cannot be asked; empty when it can."""
        return self.needs.objections(model)

    def __call__(self, model: HookedModel, inputs: Inputs, spec: Spec | None = None, *, progress: Progress = silent) -> Result:
        """Run. Raises Incompatible (model) or BadValue (inputs) before anything is computed."""
        if reasons := self.explain_incompatibility(model):
            raise Incompatible(self.name, f"this {model.family} model", reasons)
        spec = spec if spec is not None else self.spec()
        needed = self.needs.given(spec)
        for name in needed:
            if getattr(inputs, name) is None:
                raise BadValue(f"inputs.{name}", None, f"given: '{self.name}' needs {', '.join(needed)}")
        return self.compute(model, inputs, spec, progress)


# --- suites -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One item of a suite. ``cluster`` names what it shares with others (template, document); ``facts`` is its content."""

    id: str
    facts: Mapping[str, Any]
    cluster: str = ""
    group: str = ""


@dataclass(frozen=True)
class Loglikelihood:
    """Ask for the log-likelihood (nats) of each continuation after ``context``; an empty context means the BOS token.

    The response is a list with, for each continuation, the list of its tokens' log-probabilities.
    """

    context: str
    continuations: tuple[str, ...]


@runtime_checkable
class Chat(Protocol):
    """How what a user says becomes a prompt: a chat template, with its system prompt."""

    def asking(self, text: str, tokenizer: Tokenizer) -> list[int]:
        """The ids up to where the answer begins."""
        ...


@dataclass(frozen=True)
class Generate:
    """Ask for a continuation of ``prompt``: greedy, at most ``most`` tokens, up to and without any of ``until``. With ``chat`` the prompt
    is what a user says, and the continuation the answer."""

    prompt: str
    most: int = 16
    until: tuple[str, ...] = ()
    chat: Chat | None = None


@dataclass(frozen=True)
class Sampled:
    """Ask for ``copies`` sampled continuations of ``prompt``, of at most ``most`` tokens each, drawn at temperature 1 from the fewest
    likeliest tokens that hold the share ``nucleus`` (Holtzman et al. 2020). ``seed`` and the prompt decide the draws, nothing else."""

    prompt: str
    copies: int
    most: int = 20
    nucleus: float = 0.9
    seed: int = 0


@dataclass(frozen=True)
class Rolling:
    """Ask for the log-likelihood (nats) of a text of any length after ``context``, read through a sliding window.

    The response is a list with one entry, the text's tokens' log-probabilities, as for one continuation.
    """

    text: str
    context: str = ""


@dataclass(frozen=True)
class Moments:
    """Ask for a text's log-likelihood after ``context`` with what the model's distribution says at each of its tokens.

    The response is three lists, an entry a token: log p (nats), the entropy of the distribution (nats), the variance of log p under it
    (nats²). A text that does not fit the model's context is refused.
    """

    text: str
    context: str = ""


Request = Moments | Loglikelihood | Rolling | Generate | Sampled
Response = list[list[float]] | str | list[str]
Refuse = Callable[[int, AssayError], None]


@dataclass(frozen=True)
class Score:
    """What a sample was worth: ``values`` by name, or unscored with a reason (never a plausible number)."""

    sample: str
    values: Mapping[str, Any] = field(default_factory=dict)
    unscored: str = ""
    cluster: str = ""
    group: str = ""


@runtime_checkable
class Answering(Protocol):
    """A model that answers requests itself, since it shows no logits: one behind a server. What it will not answer goes to ``refuse`` as
    (index, error), or is raised where there is none."""

    def generations(
        self, requests: Sequence[Generate], *, temperature: float, seed: int, progress: Progress, refuse: Refuse | None
    ) -> Iterator[tuple[int, str]]: ...
    def loglikelihoods(
        self, requests: Sequence[Loglikelihood], *, progress: Progress, refuse: Refuse | None
    ) -> Iterator[tuple[int, list[list[float]]]]: ...


class Suite(Protocol):
    """A set of samples with a scorer.

    ``request`` may ask several things about one sample; ``score`` then gets the responses as a tuple, in that order.
    """

    @property
    def name(self) -> str: ...
    @property
    def spec(self) -> type[Spec]: ...
    @property
    def needs(self) -> Needs: ...

    def samples(self, spec: Any) -> Iterable[Sample]: ...
    def request(self, sample: Sample, spec: Any) -> Request | tuple[Request, ...]: ...
    def score(self, sample: Sample, response: Any, spec: Any) -> Score: ...
    def aggregate(self, scores: Sequence[Score], spec: Any) -> Result: ...
    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Any]: ...


@runtime_checkable
class Various(Protocol):
    """A suite that needs more or less of a model by its spec."""

    def needs_for(self, spec: Any) -> Needs: ...


def needs_of(suite: Suite, spec: Spec) -> Needs:
    """What ``suite`` needs of a model under ``spec``; without one that it says, what it needs under any."""
    return suite.needs_for(spec) if isinstance(suite, Various) else suite.needs
