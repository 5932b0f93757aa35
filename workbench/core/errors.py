"""Every error a user can meet, as one tree.

    AssayError                    exit code 3
    ├── UsageError                exit code 64: what was typed cannot be meant
    │   ├── UnknownName           a site, suite, instrument, model, field … that does not exist
    │   ├── EmptySelection        a pattern that matches nothing
    │   └── BadValue              a field whose value is outside what is allowed
    ├── Incompatible              this instrument cannot answer on this model
    ├── MissingFile               a path that is not there
    ├── MissingData               a public data set that is neither mirrored nor cached
    ├── MissingExtra              an optional package that is not installed
    ├── CorruptFile               a file whose content is not what its hash or format says
    ├── Diverged                  a training run whose loss or gradient is no longer finite
    ├── LostRank                  a process that others train with is gone
    ├── Unanswered                a server that does not answer as asked
    └── StoreError                the run store cannot do what was asked

Each class takes facts and builds one or two sentences that answer four questions: what was asked, what
was found, what is allowed, what to do. This module imports the standard library only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

EXIT_OK, EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 3, 64, 130


def nearest(asked: str, allowed: Iterable[str], most: int = 3) -> list[str]:
    """The names in ``allowed`` closest to ``asked`` (Ratcliff-Obershelp, cut-off 0.5), best first."""
    return difflib.get_close_matches(asked, list(allowed), n=most, cutoff=0.5)


def listed(names: Sequence[str], most: int = 12) -> str:
    """``names`` quoted in one line, cut after ``most`` with a count of the rest."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


class AssayError(Exception):
    """Base of everything the product raises on purpose; ``exit_code`` is what the shell sees."""

    exit_code = EXIT_ERROR


class UsageError(AssayError):
    """What was typed cannot be meant."""

    exit_code = EXIT_USAGE


class UnknownName(UsageError):
    """A name that is not in a closed list."""

    def __init__(self, kind: str, asked: str, allowed: Iterable[str], *, where: str = "", hint: str = "") -> None:
        self.kind, self.asked, self.allowed = kind, asked, sorted(allowed)
        close = nearest(asked, self.allowed)
        place = f" {where}" if where else ""
        known = f"Did you mean {listed(close)}?" if close else f"Known: {listed(self.allowed) or 'none'}."
        super().__init__(f"There is no {kind} '{asked}'{place}. {known}" + (f" {hint}" if hint else ""))


class EmptySelection(UsageError):
    """A pattern that matches nothing: an error, never an empty result."""

    def __init__(self, kind: str, pattern: str, allowed: Iterable[str], *, where: str = "", hint: str = "") -> None:
        self.pattern, self.allowed = pattern, list(allowed)
        place = f" of {where}" if where else ""
        close = nearest(pattern, self.allowed)
        known = f"Nearest: {listed(close)}." if close else f"There are {len(self.allowed)}, such as {listed(self.allowed, 3)}."
        known = known if self.allowed else "There are none."
        super().__init__(f"The pattern '{pattern}' matches no {kind}{place}. {known}" + (f" {hint}" if hint else ""))


class BadValue(UsageError):
    """A field or argument whose value is not allowed."""

    def __init__(self, field: str, found: object, allowed: str, *, do: str = "") -> None:
        self.field, self.found, self.allowed = field, found, allowed
        super().__init__(f"{field} is {found!r}, but it must be {allowed}." + (f" {do}" if do else ""))


class Incompatible(AssayError):
    """This instrument or suite cannot answer on this model, and why."""

    def __init__(self, asked: str, model: str, reasons: Sequence[str], *, do: str = "") -> None:
        self.asked, self.model, self.reasons = asked, model, tuple(reasons)
        super().__init__(f"'{asked}' cannot run on {model}: {'; '.join(reasons)}." + (f" {do}" if do else ""))


class MissingFile(AssayError):
    """A path that is not there."""

    def __init__(self, path: object, what: str, *, do: str = "") -> None:
        self.path = str(path)
        super().__init__(f"No {what} at '{path}'." + (f" {do}" if do else ""))


class MissingData(AssayError):
    """A public data set that is neither in the mirror nor in the cache."""

    def __init__(self, name: str, looked_in: Sequence[str], *, reason: str = "") -> None:
        self.name = name
        places = " and ".join(f"'{place}'" for place in looked_in) or "no place"
        super().__init__(
            f"The data set '{name}' was not found in {places}{f' ({reason})' if reason else ''}. "
            f"Run `workbench data fetch {name}` where there is a network, or set WORKBENCH_DATA_MIRROR to a folder that holds '{name}/'."
        )


class MissingExtra(AssayError):
    """An optional package that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{purpose} needs the package '{package}', which is not installed. Run `pip install 'assay-workbench[{extra}]'`.")


class CorruptFile(AssayError):
    """A file whose content is not what its hash, format or manifest says."""

    def __init__(self, path: object, expected: str, found: str, *, do: str = "") -> None:
        self.path, self.expected, self.found = str(path), expected, found
        super().__init__(f"'{path}' should be {expected}, but {found}." + (f" {do}" if do else ""))


class Diverged(AssayError):
    """A training run whose loss or gradient is no longer finite; the step was not taken and nothing was written after it."""

    def __init__(self, step: int, loss: float, norm: float, *, last: str = "") -> None:
        self.step, self.loss, self.norm, self.last = step, loss, norm, last
        kept = f"The last checkpoint, '{last}', is whole." if last else "No checkpoint had been written."
        super().__init__(
            f"Training stopped at step {step}: the loss is {loss} and the gradient norm {norm}. {kept} "
            "Lower `lr`, lengthen `warmup` or look at the data of that step."
        )


class LostRank(AssayError):
    """A training by several processes that ended because one of them did."""

    def __init__(self, who: str, *, step: int = 0, last: str = "") -> None:
        self.who, self.step, self.last = who, step, last
        kept = f"The last checkpoint, '{last}', is whole: resume to go on from there." if last else "No checkpoint had been written."
        super().__init__(f"{who}. Training stopped after step {step}. {kept}")


class Unanswered(AssayError):
    """A server that does not answer as asked, or that is not asked any more."""

    def __init__(self, url: str, asked: str, found: str, *, do: str = "") -> None:
        self.url, self.found = url, found
        super().__init__(f"At '{url}' {asked}: {found}." + (f" {do}" if do else ""))


class StoreError(AssayError):
    """The run store cannot do what was asked."""

    def __init__(self, asked: str, found: str, *, do: str = "") -> None:
        super().__init__(f"{asked}: {found}." + (f" {do}" if do else ""))
