"""Every error a user can meet, as one tree.

    AssayError                    exit code 3
    ├── UsageError                exit code 64: what was typed cannot be meant
    │   ├── UnknownName           a site, suite, instrument, model, field … that does not exist
    │   ├── EmptySelection        a pattern that matches nothing
    │   └── BadValue              a field whose value is outside what is allowed
    │       └── Changed           what a run was started with is not what it would go on with (exit code 3)
    ├── Incompatible              this instrument cannot answer on this model
    ├── MissingFile               a path that is not there
    ├── MissingData               a public data set that is neither mirrored nor cached
    ├── MissingExtra              an optional package that is not installed
    ├── CorruptFile               a file whose content is not what its hash or format says
    │   └── Damaged               a checkpoint that a run should go on from and cannot
    ├── Unwritable                a disk that does not take what a run has to write
    ├── Occupied                  a folder that another process is training in
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
    """Base of everything the product raises on purpose; ``exit_code`` is what the shell sees.

    ``then`` is a last sentence, of what comes after the remedy; whoever knows it sets it.
    """

    exit_code = EXIT_ERROR
    then = ""

    def __str__(self) -> str:
        return f"{super().__str__()} {self.then}".rstrip()


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


class Changed(BadValue):
    """What a run was started with is not what it would go on with. ``what`` changed, ``before`` and ``now`` (digests, mostly)."""

    exit_code = EXIT_ERROR

    def __init__(self, out: object, what: str, before: str, now: str, *, last: str = "", do: str = "") -> None:
        self.field, self.found, self.allowed, self.what = "out", str(out), f"started with this {what}", what
        left = f"'{last}'" if last else "its last checkpoint"
        AssayError.__init__(
            self,
            f"The run in '{out}' was started with another {what} ({before} then, {now} now). "
            f"{do or 'Put back what it was'} to go on from {left}, or start a new run.",
        )


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


class Resumable:
    """What the errors share that end a training which can go on. ``run`` is filled in by whoever knows its id; the sentences are built
    when they are read."""

    run = ""

    def __str__(self) -> str:
        return self.sentences()

    def sentences(self) -> str:
        """What happened, the last whole checkpoint, and what to do."""
        raise NotImplementedError

    def again(self, step: int | None = None) -> str:
        """How to go on: from the newest checkpoint, or from that of ``step``."""
        if self.run:
            return f"with the same command and `--resume {self.run}{f' --from {step}' if step is not None else ''}`"
        return "by training into the same folder again" if step is None else f"by training into it again after `rewind(out, {step})`"


class Damaged(Resumable, CorruptFile):
    """The checkpoint that a run should go on from is not whole. ``good`` is the newest one that is and that it can go on from, or ''."""

    def __init__(self, fault: str, path: object, *, good: str = "", step: int = 0) -> None:
        self.fault, self.path, self.good, self.step = fault, str(path), good, step
        AssayError.__init__(self, fault)

    def sentences(self) -> str:
        if not self.good:
            return f"{self.fault}. No other checkpoint of this run is whole: restore that one, or begin again {self.again(0)}."
        how = self.again(self.step)
        return f"{self.fault}. The last whole checkpoint is '{self.good}': restore the damaged one, or go on from step {self.step} {how}."


class Unwritable(Resumable, AssayError):
    """A disk that does not take what a run has to write: it is full, read-only or gone. Nothing that was whole is lost."""

    def __init__(self, what: str, path: object, why: str, *, last: str = "") -> None:
        self.what, self.path, self.why, self.last = what, str(path), why, last
        super().__init__(what)

    def sentences(self) -> str:
        full = any(word in self.why.lower() for word in ("space", "full", "quota", "too large"))
        remedy = "Make room" if full else "Make it writable"
        left = f"the last whole checkpoint, '{self.last}'," if self.last else "the beginning, since no checkpoint had been written,"
        return f"{self.what} could not be written to '{self.path}': {self.why}. {remedy} and go on from {left} {self.again()}."


class Occupied(AssayError):
    """A folder that another process is training in. ``holder`` names that process."""

    def __init__(self, folder: object, holder: str) -> None:
        self.folder, self.holder = str(folder), holder
        super().__init__(f"'{folder}' is being trained in by {holder}. Wait until it has ended, or stop it first.")


class Diverged(AssayError):
    """A training run whose loss, gradient or weights are no longer finite; nothing was written after it. ``found`` says which, where it
    is not the loss or the gradient."""

    def __init__(self, step: int, loss: float, norm: float, *, last: str = "", found: str = "") -> None:
        self.step, self.loss, self.norm, self.last = step, loss, norm, last
        kept = f"The last checkpoint, '{last}', is whole, but to go on would end here again" if last else "No checkpoint had been written"
        super().__init__(
            f"Training stopped at step {step}: {found or f'the loss is {loss} and the gradient norm {norm}'}. {kept}. "
            "Lower `lr`, lengthen `warmup` or look at the data of that step, in a new run."
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
