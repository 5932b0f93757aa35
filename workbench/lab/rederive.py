"""Deriving a report again from its evidence, without the model: samples to results, results to findings, findings to report and page.

Numbers computed on another processor differ in their last digits, so two numbers are equal when they differ by at most ``RELATIVE`` of
the larger, and two texts when their words are the same and each number in them differs by at most one unit in its last printed place.
What only this program's other versions would write (words, drawings, layout) is compared where the code is the one that wrote the report,
and is *not checked* otherwise.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from evals import SUITES
from evals.runner import FORMAT, score_of
from workbench.core.errors import AssayError, MissingData, MissingFile
from workbench.core.finding import Finding
from workbench.core.result import Provenance, Result
from workbench.core.spec import digest_of
from workbench.lab.circumstances import environment
from workbench.lab.derivation import Again, AuditAgain, ComparisonAgain, TrendAgain
from workbench.lab.internals import InternalsResult, InternalsSpec, tested
from workbench.lab.told import aggregated, told_name
from workbench.reports.evidence import bundle
from workbench.reports.evidence.container import Fault
from workbench.reports.evidence.samples import Row
from workbench.reports.evidence.verify import Check, Content, check
from workbench.reports.render import html

_AGAIN: Mapping[str, Callable[[Content, Provenance], Again]] = {
    "audit": AuditAgain, "comparison": ComparisonAgain, "trend": TrendAgain,
}  # fmt: skip
RELATIVE = 1e-9
_ODD = (AssayError, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_SAID = ("because", "card_words", "rederive", "claim", "measure", "subject", "source", "unit", "status", "words", "name", "method")


def rederive(content: Content) -> list[Check]:
    """Everything the report says derived again from the samples, as checks. No model is loaded and nothing is fetched."""
    try:
        written = content.circumstances["environment"]
        here = Provenance.here(code=str(written["code"]), packages=_packages(written))
        again = _AGAIN[content.run["kind"]](content, here)
    except (KeyError, TypeError, AssayError) as error:
        return [check("results", [Fault(bundle.CIRCUMSTANCES, f"it does not say what models were asked ({error})")], "")]
    same_code = environment(Provenance.here())["source"] == written.get("source")
    checks = _guarded("results", "results", lambda: _results(content))
    checks += _guarded("subjects", bundle.CIRCUMSTANCES, again.checks)
    return checks + _guarded("findings", bundle.FINDINGS, lambda: _drawn_again(content, again, same_code, written))


def _guarded(name: str, where: str, make: Callable[[], list[Check]]) -> list[Check]:
    """The checks, or one that is broken: what is in a bundle may be of any shape, and never ends the program."""
    try:
        return make()
    except _ODD as error:
        words = (str(error).splitlines() or [""])[0][:300]
        return [check(name, [Fault(where, f"nothing can be derived from what is there ({words or type(error).__name__})")], "")]


def _drawn_again(content: Content, again: Again, same_code: bool, written: Mapping[str, Any]) -> list[Check]:
    checks = [_findings(content, again.findings(), same_code)]
    if not same_code:
        words = (
            f"another version of this program wrote it (source {str(written.get('source'))[:12]}…), so words and layout are not compared"
        )
        return [*checks, Check("report", "not checked", words)]
    return [*checks, *_guarded("report", bundle.REPORT, lambda: [_report(content, again, written)])]


def _packages(written: Mapping[str, Any]) -> dict[str, str]:
    known = Provenance.here().packages
    return {name: str(written["packages"][name]) for name in known}


# --- samples to results ---------------------------------------------------------------------------------------


def _results(content: Content) -> list[Check]:
    """Each suite's result aggregated again from its samples."""
    faults: list[Fault] = []
    unchecked: list[str] = []
    again = 0
    for label, result in sorted(content.results.items()):
        name = f"results/{label}.json"
        if isinstance(result, InternalsResult):
            faults += _located(name, result)
        if result.kind not in SUITES:
            continue
        if label not in content.samples:
            faults.append(Fault(name, "its samples are missing"))
            continue
        rows = content.samples[label]
        faults += _strangers(label, result, rows)
        try:
            found = aggregated(result, [score_of(row.record) for row in rows], content.told.get(told_name(result)))
        except (MissingData, MissingFile) as error:
            unchecked.append(f"{label} ({str(error).split('. ')[0]})")
            continue
        except (AssayError, KeyError, ValueError, TypeError, IndexError) as error:
            faults.append(Fault(name, f"its samples give no result: {error}"))
            continue
        differs = next(differences(_values(result), _values(found), ""), None)
        if differs:
            faults.append(Fault(name, f"its samples give another result: {differs}"))
        again += len(rows)
    read = {told_name(result) for result in content.results.values()}
    faults += [Fault(f"told/{name}.json", "no result reads it") for name in sorted({*content.told} - read)]
    faults += [Fault(f"samples/{label}.parquet", "there is no result of it") for label in sorted({*content.samples} - {*content.results})]
    checks = [check("results", faults, f"every suite's result follows from its samples ({again:,} of them)")]
    if unchecked:
        checks.append(Check("results that rest on data", "not checked", f"the data is not here: {'; '.join(unchecked)}"))
    return checks


def _located(name: str, result: InternalsResult) -> Iterator[Fault]:
    """Whether the tests of a localisation, and so its choice of parts, follow from its items."""
    v, spec = result.values, InternalsSpec.parse(result.spec)
    p, adjusted = tested(v.effect.values, v.control.values, [str(one) for one in v.cluster.values], spec)
    carry = (adjusted <= spec.alpha) & (v.effect.values.mean(1) > 0)
    for word, said, again in (("p", v.p.values, p), ("holm", v.holm.values, adjusted)):
        if differs := next(differences(said.tolist(), again.tolist(), word), None):
            yield Fault(name, f"its items give another test: {differs}")
    if (v.chosen.values & ~carry).any():
        yield Fault(name, "its repair has a part that does not carry the failure")


def _values(result: Result) -> Any:
    return json.loads(result.canonical())["values"]


def _strangers(label: str, result: Result, rows: Sequence[Row]) -> Iterator[Fault]:
    """Samples that say they belong to another model, suite, spec or data."""
    suite = SUITES.load(result.kind)
    spec = suite.spec.parse(result.spec, what=f"stored spec of '{label}'")
    of = result.provenance
    own = digest_of([FORMAT, result.kind, spec.digest(), of.data_digest, of.model_digest, of.dtype])
    seen: set[str] = set()
    for row in rows:
        sample = str(row.record["sample"])
        if row.record["of"] != own:
            yield Fault(f"sample {label}/{sample}", "it is an answer of another model, spec or data")
        if sample in seen:
            yield Fault(f"sample {label}/{sample}", "it is there twice")
        seen.add(sample)


# --- results to findings to report ------------------------------------------------------------------------------


def _findings(content: Content, found: Sequence[Finding], same_code: bool) -> Check:
    """Every number of every finding (effect, interval, null, detectable, denominators, verdict), and their words under the same code."""
    faults: list[Fault] = []
    if len(found) != len(content.findings):
        faults.append(Fault(bundle.FINDINGS, f"there are {len(content.findings)}, and the results give {len(found)}"))
    for number, (said, again) in enumerate(zip(content.findings, found, strict=False), 1):
        a, b = (one.model_dump(mode="json") for one in (said, again))
        if not same_code:
            a, b = _without_words(a), _without_words(b)
        differs = next(differences(a, b, ""), None)
        if differs:
            faults.append(Fault(f"finding {number} ({said.source}: {said.measure})", f"its evidence gives another: {differs}"))
    return check("findings", faults, f"all {len(found)}, with every number of the verdict table, follow from the results")


def _without_words(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_words(item) for name, item in value.items() if name not in _SAID}
    return [_without_words(item) for item in value] if isinstance(value, list) else value


def _report(content: Content, derived: Again, written: Mapping[str, Any]) -> Check:
    """The whole report composed again, and its page rendered again from it."""
    faults: list[Fault] = []
    said: Any = content.report
    again = derived.report()
    mine = environment(Provenance.here())["packages"]
    drawn_alike = all(mine.get(name) == written["packages"].get(name) for name in ("altair", "vl-convert-python"))
    a, b = (one.model_dump(mode="json") for one in (said, again))
    if not drawn_alike:
        a, b = _undrawn(a), _undrawn(b)
    if differs := next(differences(a, b, ""), None):
        faults.append(Fault(bundle.REPORT, f"its evidence gives another: {differs}"))
    if html.render(said) != content.page:
        faults.append(Fault(bundle.PAGE, "it is not the page of report.json"))
    words = "composed again it says the same, and its page is the one it has"
    return check("report", faults, words if drawn_alike else f"{words}; drawings are not compared, since other versions drew them")


def _undrawn(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _undrawn(item) for name, item in value.items() if name != "svg"}
    return [_undrawn(item) for item in value] if isinstance(value, list) else value


def differences(a: Any, b: Any, path: str) -> Iterator[str]:
    """Where two JSON values differ by more than rounding: the path and both values, in order."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted({*a, *b}):
            if name not in a or name not in b:
                yield f"{path}.{name} is only in {'the bundle' if name in a else 'what is derived'}"
            else:
                yield from differences(a[name], b[name], f"{path}.{name}".lstrip("."))
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield f"{path} has {len(a)} entries, derived are {len(b)}"
        for number, (one, other) in enumerate(zip(a, b, strict=False)):
            yield from differences(one, other, f"{path}[{number}]")
    elif not _same(a, b):
        yield f"{path} is {_short(a)}, derived is {_short(b)}"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or math.isclose(a, b, rel_tol=RELATIVE, abs_tol=RELATIVE)
    if isinstance(a, str) and isinstance(b, str):
        return a == b or _same_text(a, b)
    return a == b


def _same_text(a: str, b: str) -> bool:
    """The same words, and numbers that differ by at most one unit in the last printed place."""
    if len(a) > 1_000_000 or _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    return all(
        abs(_value(x) - _value(y)) <= 1.001 * max(_unit(x), _unit(y)) for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    )


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def _unit(text: str) -> float:
    mantissa, _, power = text.partition("e")
    return float(10 ** (int(power or 0) - len(mantissa.partition(".")[2]))) if "." in mantissa or power else 0.0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
