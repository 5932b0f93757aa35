"""Checking a bundle by itself: its bytes, hashes, chain and signature. What the numbers are worth is derived again by ``lab.rederive``.

A check *holds*, is *broken*, or was *not checked* with the reason. Whatever is wrong is named: the entry, the line of the journal, the
sample. Nothing is written to disk and no entry's name is used as a path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import pydantic

from workbench.core.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_OK, AssayError, MissingExtra
from workbench.core.finding import Card, Finding
from workbench.core.result import Result
from workbench.core.spec import canonical_json
from workbench.reports.evidence import bundle, journal, statement
from workbench.reports.evidence.container import Fault, unpack
from workbench.reports.evidence.keys import PublicKey
from workbench.reports.evidence.plans import PLANS, AnyPlan
from workbench.reports.evidence.samples import WRITER, Row, from_parquet, to_parquet
from workbench.reports.report import Report

State = Literal["holds", "broken", "not checked"]
T = TypeVar("T")
MOST_NAMED = 20
_UNREADABLE = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, ImportError, AssayError, pydantic.ValidationError,
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. ``faults`` name what is broken."""

    name: str
    state: State
    words: str
    faults: tuple[Fault, ...] = ()

    def lines(self) -> list[str]:
        """For a terminal: the check, then each fault, the first ``MOST_NAMED`` of them."""
        mark = {"holds": "ok", "broken": "BROKEN", "not checked": "?"}[self.state]
        rest = [f"        and {len(self.faults) - MOST_NAMED} more"] if len(self.faults) > MOST_NAMED else []
        return [f"{mark:<7} {self.name}: {self.words}", *(f"        {fault}" for fault in self.faults[:MOST_NAMED]), *rest]


def check(name: str, faults: Sequence[Fault], words: str) -> Check:
    """The check that holds with ``words`` where nothing is wrong."""
    if faults:
        return Check(name, "broken", f"{len(faults)} {'thing does' if len(faults) == 1 else 'things do'} not hold", tuple(faults))
    return Check(name, "holds", words)


@dataclass(frozen=True)
class Verification:
    """All checks of a bundle. ``signer``: the fingerprint it is signed by, or ''."""

    checks: tuple[Check, ...]
    signer: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0: everything holds, by a trusted signer; 1: something is broken; 2: nothing is, but not everything could be checked."""
        states = {one.state for one in self.checks}
        return EXIT_GATE_FAILED if "broken" in states else EXIT_INCONCLUSIVE if "not checked" in states else EXIT_OK

    @property
    def verdict(self) -> str:
        return {EXIT_OK: "verified", EXIT_GATE_FAILED: "broken", EXIT_INCONCLUSIVE: "inconclusive"}[self.exit_code]

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(fault for one in self.checks for fault in one.faults)


@dataclass
class Content:
    """What a bundle holds, read. ``entries`` are its raw bytes; the rest is as in ``bundle.Evidence``."""

    entries: Mapping[str, bytes]
    run: Mapping[str, Any] = field(default_factory=dict)
    plan: Any = None
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    samples: dict[str, list[Row]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)
    cards: list[Card] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()
    report: Any = None
    page: str = ""


def examine(data: bytes) -> tuple[Content | None, list[Check]]:
    """Everything that can be checked of the bytes alone; the content where it could be read to the end."""
    entries, faults = unpack(data)
    checks = [check("container", faults, f"{len(entries)} entries in the one form a bundle has")]
    if statement.NAME not in entries:
        if not faults:
            checks.append(check("entries", [Fault(statement.NAME, "it is missing: nothing says what must be here")], ""))
        return None, checks
    checks.append(check("entries", list(_stated(entries)), "every entry is there and has the hash that is stated"))
    content, unread = _read(entries)
    checks.append(check("form", [*unread, *_form(entries)], f"every entry, written again, has the same bytes{_writer_words(content)}"))
    if unread:
        return None, checks
    checks.append(check("journal", _journal(content), "its chain is whole and holds every sample, result and finding"))
    checks.append(check("agreement", list(_agreement(content)), "plan, specs, results, findings, report and statement say the same"))
    return content, checks


def check_signature(entries: Mapping[str, bytes], given: PublicKey | None, trusted: Mapping[str, str]) -> tuple[Check, str]:
    """Who signed the bundle and whether that signer is believed: by the key that was ``given``, else by the list of ``trusted`` ones.

    Returns the check and the fingerprint ('' for an unsigned bundle).
    """
    if statement.ENVELOPE not in entries:
        words = "it is not signed, so that it is whole says nothing of who made it"
        return Check("signature", "not checked", words), ""
    text, name = entries[statement.ENVELOPE].decode("utf-8", "replace"), statement.ENVELOPE
    try:
        if statement.payload_of(text) != entries.get(statement.NAME):
            fault = Fault(name, "what is signed is not the statement of this bundle")
            return check("signature", [fault], ""), ""
        key = PublicKey.parse(entries.get(statement.SIGNER, b"").decode("utf-8", "replace"), statement.SIGNER)
    except MissingExtra as error:
        return Check("signature", "not checked", str(error)), ""
    except AssayError as error:
        return check("signature", [Fault(name, str(error))], ""), ""
    if not statement.signed_by(text, key):
        claimed = ", ".join(statement.keys_of(text)) or "nobody"
        fault = Fault(name, f"the signature is not one of {key.fingerprint} over this statement (it says {claimed}): forged or changed")
        return check("signature", [fault], ""), ""
    if given is not None and given.fingerprint == key.fingerprint:
        return Check("signature", "holds", f"signed by the key that was given, {key.fingerprint}"), key.fingerprint
    if given is not None:
        words = f"the signer is not the key that was given: it is signed by {key.fingerprint}, and the key is {given.fingerprint}"
        return Check("signature", "not checked", words), key.fingerprint
    if key.fingerprint in trusted:
        return Check("signature", "holds", f"signed by {trusted[key.fingerprint] or 'a trusted key'}, {key.fingerprint}"), key.fingerprint
    words = f"the signer is unknown: {key.fingerprint}. If that is whom you expect, `workbench keys trust {key.fingerprint}` believes it"
    return Check("signature", "not checked", words), key.fingerprint


# --- one check each -------------------------------------------------------------------------------------------


def _stated(entries: Mapping[str, bytes]) -> Iterator[Fault]:
    try:
        stated, _ = statement.digests_in(entries[statement.NAME].decode("utf-8", "replace"))
    except AssayError as error:
        yield Fault(statement.NAME, str(error))
        return
    files = {name: digest for name, digest in stated.items() if not name.startswith("model:")}
    for name in sorted({*files, *entries}):
        if name in statement.UNSIGNED:
            continue
        if name not in entries:
            yield Fault(name, "it is stated but missing")
        elif name not in files:
            yield Fault(name, "it is here but not stated: it was put in afterwards")
        elif (found := hashlib.sha256(entries[name]).hexdigest()) != files[name]:
            yield Fault(name, f"it was changed: its sha256 is {found[:12]}…, stated is {files[name][:12]}…")


def _read(entries: Mapping[str, bytes]) -> tuple[Content, list[Fault]]:
    """The content, and the entries that could not be read."""
    faults: list[Fault] = []

    def read(name: str, way: Callable[[str], T], instead: T) -> T:
        if name not in entries:
            faults.append(Fault(name, "it is missing"))
            return instead
        try:
            return way(entries[name].decode("utf-8"))
        except _UNREADABLE as error:
            words = (str(error).splitlines() or [""])[0][:300]
            faults.append(Fault(name, f"it cannot be read ({words or type(error).__name__})"))
            return instead

    content = Content(entries)
    content.run = read(bundle.RUN, _mapping, {})
    content.plan = read(bundle.PLAN, lambda text: _plan(content.run, text), None)
    content.circumstances = read(bundle.CIRCUMSTANCES, _mapping, {})
    content.data = read(bundle.DATA, _mapping, {})
    content.findings = read(bundle.FINDINGS, lambda text: tuple(Finding.parse(one) for one in json.loads(text)), ())
    content.report = read(bundle.REPORT, Report.from_json, None)
    content.page = read(bundle.PAGE, str, "")
    for name in sorted(entries):
        folder, _, file = name.partition("/")
        if folder == "results" and (result := read(name, Result.from_json, None)) is not None:
            content.results[file.removesuffix(".json")] = result
        elif folder == "cards" and (card := read(name, lambda text: Card.parse(json.loads(text)), None)) is not None:
            content.cards.append(card)
        elif folder == "told" and (told := read(name, _mapping, None)) is not None:
            content.told[file.removesuffix(".json")] = told
        elif folder == "asked" and (asked := read(name, _digests, None)) is not None:
            content.asked[file.removesuffix(".json")] = asked
        elif folder == "samples":
            try:
                content.samples[file.removesuffix(".parquet")] = from_parquet(entries[name], name)
            except AssayError as error:
                faults.append(Fault(name, str(error)))
    return content, faults


def _mapping(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("no JSON object")
    return found


def _plan(run: Mapping[str, Any], text: str) -> AnyPlan:
    kind = str(run.get("kind"))
    if kind not in PLANS:
        raise ValueError(f"it is of a run of kind '{kind}', and a bundle is of one of {', '.join(PLANS)}")
    return PLANS[kind].parse(json.loads(text), what=bundle.PLAN)


def _digests(text: str) -> list[str]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise TypeError("no list of digests")
    return found


def _form(entries: Mapping[str, bytes]) -> Iterator[Fault]:
    """The entries whose bytes are not those they have when what they say is written again."""
    for name in sorted(entries):
        if name.endswith(".json"):
            try:
                text = entries[name].decode("utf-8")
                if canonical_json(json.loads(text)) != text:
                    yield Fault(name, "it is not written in the canonical form")
            except _UNREADABLE:
                yield Fault(name, "it is not JSON")
    for name in sorted(entries):
        if name.startswith("samples/") and _same_writer(entries):
            try:
                if to_parquet(from_parquet(entries[name], name)) != entries[name]:
                    yield Fault(name, "its rows, written again, have other bytes")
            except _UNREADABLE:
                pass  # named where it was read
    known = {bundle.README, bundle.PAGE, journal.NAME, statement.SIGNER}
    for name in sorted(entries):
        if not name.endswith(".json") and not (name.startswith("samples/") and name.endswith(".parquet")) and name not in known:
            yield Fault(name, "a bundle has no such entry")


def _same_writer(entries: Mapping[str, bytes]) -> bool:
    try:
        return json.loads(entries[bundle.RUN])["samples_writer"] == WRITER
    except _UNREADABLE:
        return False


def _writer_words(content: Content) -> str:
    found = content.run.get("samples_writer")
    return "" if found in (None, WRITER) else f" (the samples, written by {str(found)[:40]}, row by row, since here is {WRITER})"


def _journal(content: Content) -> list[Fault]:
    entries, faults = (
        journal.read(content.entries[journal.NAME].decode("utf-8", "replace")) if journal.NAME in content.entries else ([], [])
    )
    stored = [entry for entry in entries if entry["kind"] not in ("run", "event")]
    must = bundle.derived_lines(content.samples, content.results, content.findings, content.report, content.page)
    begun = {"kind": "run", "name": content.run.get("id"), "created": content.run.get("created"), "plan": content.plan.digest()}
    if not entries or entries[0] != begun:
        faults.append(Fault(f"{journal.NAME} line 1", "it is not the beginning of this run by this plan"))
    told = {(one["kind"], one.get("name")): one.get("sha256") for one in stored}
    here = {(one["kind"], one["name"]): one["sha256"] for one in must}
    for where in sorted({*told, *here}, key=str):
        kind, name = where
        if where not in here:
            faults.append(Fault(f"{kind} {name}", "the journal has it, but it is not in the bundle"))
        elif where not in told:
            faults.append(Fault(f"{kind} {name}", "it is in the bundle, but not in the journal"))
        elif told[where] != here[where]:
            faults.append(Fault(f"{kind} {name}", "it is not what the journal says: it was changed or swapped"))
    if not faults and stored != must:
        first = next((i for i, (a, b) in enumerate(zip(stored, must, strict=False)) if a != b), min(len(stored), len(must)))
        where = must[min(first, len(must) - 1)]
        faults.append(Fault(f"{where['kind']} {where['name']}", "it does not stand in the journal's order"))
    return faults


def _agreement(content: Content) -> Iterator[Fault]:
    """Where two entries say the same thing, and whether they do."""
    entries = content.entries
    specs = {name.removeprefix("specs/").removesuffix(".json") for name in entries if name.startswith("specs/")}
    for label in sorted({*specs, *content.results}):
        if label not in content.results:
            yield Fault(f"specs/{label}.json", "there is no result of it")
        elif entries.get(f"specs/{label}.json") != canonical_json(dict(content.results[label].spec)).encode():
            yield Fault(f"specs/{label}.json", "it is not the spec of its result")
    if content.run.get("kind") != content.report.kind:
        yield Fault(bundle.RUN, f"it is of kind {content.run.get('kind')!r}, and the report is one of kind '{content.report.kind}'")
    for label in sorted(content.asked):
        if len(content.asked[label]) != len(content.samples.get(label, ())):
            yield Fault(f"asked/{label}.json", "it has not one entry for each sample")
    for number, card in enumerate(content.cards):
        if bundle.card_name(number, card) not in entries:
            yield Fault(f"cards of {card.of}", "its name is not that of its content")
    if {one.digest() for one in content.findings} != {one.digest() for one in content.report.all_findings()}:
        yield Fault(bundle.FINDINGS, "the findings are not those of the report")
    if content.run.get("format") != bundle.FORMAT:
        yield Fault(bundle.RUN, f"its format is {content.run.get('format')!r}, and this program knows {bundle.FORMAT}")
    words = entries.get(bundle.README, b"")
    if words != bundle.WORDS.encode() and hashlib.sha256(words).hexdigest() not in bundle.EARLIER:
        yield Fault(bundle.README, "it does not say what a bundle's README says")
    try:
        models = {one["ref"]: one["model_digest"] for one in content.circumstances["subjects"]}
        said = bundle.predicate_of(entries, content.run, content.plan, content.report)
        if statement.statement(entries, models, said).encode() != entries[statement.NAME]:
            yield Fault(statement.NAME, "what it says of the bundle is not what is in it")
    except _UNREADABLE as error:
        yield Fault(statement.NAME, f"it cannot be built again from the entries ({type(error).__name__})")
