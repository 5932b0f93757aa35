"""Gate policies: YAML files that say what a model must be shown to be, before a release.

Every rule is held against confidence bounds at ``alpha``, never against a bare number. Only headline and standard suites and instruments
may stand in a policy: what is experimental decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from evals import SUITES
from probes import INSTRUMENTS
from workbench.core.errors import CorruptFile, MissingFile, UnknownName, UsageError
from workbench.core.spec import Spec
from workbench.core.written import fields_in, text_of

_FOLDER = resources.files("workbench.policies")


class Limit(Spec):
    """Absolute limits of a finding's effect: the bound at alpha must lie within. ``measure`` and ``claim`` are patterns with ``*``; every
    finding of ``of`` on the audited model that they match is held to the limits."""

    kind: Literal["limit"]
    name: str = Field(min_length=1, max_length=80)
    of: str = Field(description="A suite or instrument of the run, headline or standard.")
    measure: str = Field(default="*", description="Which of its findings, by measure; * stands for any text.")
    claim: str = Field(default="*", description="Which of its findings, by claim; * stands for any text.")
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a limit with at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least >= self.at_most:
            raise ValueError(f"at_least under at_most, not {self.at_least:g} and {self.at_most:g}")
        return self


class NonInferiority(Spec):
    """Not worse than the reference by more than ``margin``: the paired difference of a value of the samples, its bound at alpha.

    ``value`` names a number (or true or false) that each sample of suite ``of`` is worth; dots reach inside.
    """

    kind: Literal["non-inferiority"]
    name: str = Field(min_length=1, max_length=80)
    of: str = Field(description="A suite of the run, headline or standard.")
    value: str = Field(min_length=1, description="A value of each sample, such as right; dots reach inside: trigger.p_no.")
    better: Literal["higher", "lower"]
    margin: float = Field(gt=0, description="How much worse is still allowed, in the value's unit.")


Rule = Annotated[Limit | NonInferiority, Field(discriminator="kind")]


class Policy(Spec):
    """A gate. It passes when every rule does (an intersection-union test, so no rule needs a correction), and fails when a bound at alpha
    divided by the number of rules lies outside, so that many rules do not fail a model by chance."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)
    alpha: float = Field(default=0.05, gt=0, lt=0.25, description="One-sided error of each bound.")
    most_unscored: float = Field(default=0.1, ge=0, le=1, description="A rule cannot pass when a larger share of its samples has no score.")
    calibrated: bool = Field(default=False, description="A rule cannot pass without a calibration card that applies to the model.")
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=200)


def names() -> list[str]:
    """The shipped policies."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


def read_policy(place: str | Path | Mapping[str, Any]) -> tuple[Policy, list[int], str]:
    """The policy in a file (or a shipped one by name, or values), the line of each rule, and what the file is called.

    A file that is not what a policy must be raises CorruptFile (exit code 3): the command line was right.
    """
    if isinstance(place, Mapping):
        return _checked(Policy.parse(place, what="the policy")), [1] * len(place.get("rules", ())), "policy.yaml"
    text = str(place)
    if text in names():
        content, name = (_FOLDER / f"{text}.yaml").read_text(encoding="utf-8"), f"{text}.yaml"
    elif Path(text).exists():
        content, name = text_of(Path(text), "a policy file"), text
    else:
        raise MissingFile(text, "policy file", do=f"Shipped policies: {', '.join(names())}. `workbench gate --schema` says what one holds.")
    values, lines = fields_in(content, text, "a policy"), _lines(content)
    try:
        return _checked(Policy.parse(values, what="the policy")), lines, name
    except UsageError as error:
        raise CorruptFile(
            text, "a gate policy (`workbench gate --schema` prints what it holds)", f"it is not: {str(error).rstrip('.')}"
        ) from None


def schema() -> dict[str, Any]:
    """The JSON schema of a policy."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Policy.model_json_schema()}


def _checked(policy: Policy) -> Policy:
    for rule in policy.rules:
        catalogs = [SUITES] if isinstance(rule, NonInferiority) else [SUITES, INSTRUMENTS]
        found = next((catalog for catalog in catalogs if rule.of in catalog), None)
        if found is None:
            raise UnknownName("suite" if len(catalogs) == 1 else "suite or instrument", rule.of, [n for c in catalogs for n in c],
                              where=f"in rule '{rule.name}'")  # fmt: skip
        if found[rule.of].status == "experimental":
            raise UsageError(
                f"Rule '{rule.name}' rests on '{rule.of}', which is experimental, and only headline and standard entries decide."
            )
    twice = sorted({rule.name for rule in policy.rules if sum(other.name == rule.name for other in policy.rules) > 1})
    if twice:
        raise UsageError(f"Two rules are called '{twice[0]}', and every rule needs a name of its own.")
    return policy


def _lines(content: str) -> list[int]:
    """The line of each entry under ``rules``, from 1."""
    whole = yaml.compose(content, Loader=yaml.SafeLoader)
    pairs = whole.value if isinstance(whole, yaml.MappingNode) else []
    for key, value in pairs:
        if key.value == "rules" and isinstance(value, yaml.SequenceNode):
            return [entry.start_mark.line + 1 for entry in value.value]
    return []
