"""The report as a Markdown model card, with the metadata that the Hugging Face hub reads: ``model-index`` and the rest of the front matter.

Every text is made visible and escaped, so that nothing a model or a data set said becomes markup, a link, a picture or a formula.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from workbench.core.finding import Finding
from workbench.reports import phrases
from workbench.reports.parts import Identity
from workbench.reports.report import Report
from workbench.reports.view import View, view
from workbench.reports.words import ENGLISH, Words, words_of

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP = re.compile(r"[\\`*_{}\[\]|~$@!^#]|:(?=//)|(?<=[wW])\.|(?<=:)(?=//)")
_LEADING = re.compile(r"^(\d+)([.)])(?=\s|$)|^([-+=:])")


def render(report: Report, *, language: str = ENGLISH) -> str:
    """The card: front matter, then the findings and what they rest on. Equal reports and languages give equal bytes."""
    seen, say = view(report, language), words_of(language)
    name = report.identities[0].name if report.identities else report.subject
    left_out = [f"**{plain(item['what'])}**: {plain(item['why'])}" for item in seen["left_out"]]
    parts = [
        "---\n" + yaml.safe_dump(metadata(report), sort_keys=False, allow_unicode=True, width=10_000) + "---",
        f"# {plain(say('card.title', name=phrases.clipped(name, language)))}",
        plain(say("card.about", digest=seen["digest"])),
        *(plain(line) for line in seen["summary"]),
        *_identity(report.identities, seen, say),
        *_findings(seen, say),
        *_tables("coverage", seen, say),
        *_named(say("page.left_out"), left_out, say("page.nothing_left_out")),
        *_named(say("limits.title"), [plain(line) for line in seen["limits"]], ""),
        *_origins(seen, say),
        *_commands(seen, say),
        plain(say("card.made_by")),
    ]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """``text`` on one line with everything escaped that Markdown, its tables, its links or a formula would read as markup."""
    line = " ".join(text.split())
    line = "".join(_ENTITIES.get(character, character) for character in line)
    line = _MARKUP.sub(lambda match: "\\" + match[0], line)
    return _LEADING.sub(lambda match: f"{match[1]}\\{match[2]}" if match[1] else f"\\{match[3]}", line)


def metadata(report: Report) -> dict[str, Any]:
    """The front matter: licence, tags, data sets and a ``model-index`` with the audited model's findings that have a value.

    Without identities the model is the report's subject. Findings about other models are not this model's results.
    """
    identity = report.identities[0] if report.identities else Identity(part="audited", name=report.subject or "model")
    out: dict[str, Any] = {"library_name": "assay", "tags": ["assay", "audit", *([_slug(identity.family)] if identity.family else [])]}
    if identity.licence:
        known = _slug(identity.licence)
        named = re.fullmatch(r"[A-Za-z0-9.+-]+", identity.licence)
        out |= {"license": known} if named else {"license": "other", "license_name": _line(identity.licence)}
    if identity.training_data:
        out["datasets"] = [_line(data.name) for data in identity.training_data]
    results = [index_entry(f) for f in report.all_findings() if f.effect is not None and f.subject == identity.name]
    if results:
        out["model-index"] = [{"name": _line(identity.name), "results": results}]
    return out


def index_entry(finding: Finding) -> dict[str, Any]:
    """A finding that has a value, as an entry of a ``model-index``."""
    args: dict[str, Any] = {"verdict": finding.verdict.value, "unit": _line(finding.unit), "status": finding.status}
    if finding.interval is not None:
        low, high, level = finding.interval.low, finding.interval.high, finding.interval.level
        args["interval"] = {"low": low, "high": high, "level": level, "method": _line(finding.interval.method)}
    if finding.null is not None and finding.null.value is not None:
        args["null"] = {"name": _line(finding.null.name), "value": finding.null.value}
    if finding.denominators is not None:
        args["items"] = {"run": finding.denominators.run, "scored": finding.denominators.scored, "excluded": finding.denominators.excluded}
    source = _line(finding.source)
    metric = {"type": _slug(finding.measure), "name": _line(finding.measure), "value": finding.effect, "args": args}
    task = {"type": _slug(finding.source), "name": _line(finding.claim)}
    return {"task": task, "dataset": {"type": _slug(finding.source), "name": source}, "metrics": [metric]}


def _line(text: str) -> str:
    return " ".join(phrases.clipped(text).split())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:80].strip("-.") or "unnamed"


def _identity(identities: Sequence[Identity], seen: View, say: Words) -> Iterable[str]:
    if identities:
        yield f"## {say('card.use')}"
        yield plain(phrases.clipped(identities[0].intended_use) or say("identity.not_stated"))
        yield f"## {say('card.out_of_scope')}"
        yield plain(phrases.clipped(identities[0].out_of_scope) or say("identity.not_stated"))
    yield from _tables("identity", seen, say)


def _findings(seen: View, say: Words) -> Iterable[str]:
    yield f"## {say('card.results')}"
    if not seen["findings"]:
        yield say("page.none_made")
        return
    names = ("no", "finding", "effect", "interval", "null", "scored", "verdict")
    rows = [
        (str(f["number"]), f"{f['claim']} ({f['subject']})", f["effect"], f["bounds"] or "–", f["null_value"], f["scored"], _decided(f))
        for f in seen["findings"]
    ]
    yield plain(say("card.results_caption"))
    yield _table([say(f"column.{name}") for name in names], rows)
    for f in seen["findings"]:
        unit = f" {f['unit']}" if f["unit"] and f["known"] else ""
        method = f" ({f['method']})" if f["method"] else ""
        yield f"### {plain(say('finding.number', number=f['number']))}: {plain(f['claim'])}"
        yield plain(f"{_decided(f)}. {f['because']}".strip())
        yield plain(f"{f['effect']}{unit}, {f['interval']}{method}")
        pairs = [*((label, text) for label, text, _ in f["facts"]), *f["details"]]
        yield "\n".join(f"- {plain(label)}: {plain(text)}" for label, text in pairs)


def _decided(f: View) -> str:
    """The verdict, with its badge where it has one."""
    return f"{f['verdict']} ({f['badge']})" if f["badge"] else str(f["verdict"])


def _tables(part: str, seen: View, say: Words) -> Iterable[str]:
    if seen[part]:
        yield f"## {say(f'{part}.title')}"
        yield plain(say(f"{part}.lead"))
    for table in seen[part]:
        yield plain(table["caption"])
        yield _table([column["name"] for column in table["columns"]], table["rows"])
        if table["note"]:
            yield plain(table["note"])


def _named(title: str, items: Sequence[str], otherwise: str) -> Iterable[str]:
    yield f"## {title}"
    yield "\n".join(f"- {item}" for item in items) if items else otherwise


def _origins(seen: View, say: Words) -> Iterable[str]:
    yield f"## {say('page.provenance')}"
    if seen["provenance"]:
        rows = [(o["kind"], o["name"], o["value"] or "–", o["sha256"] or "–") for o in seen["provenance"]]
        yield _table([say(f"column.{name}") for name in ("kind", "name", "value", "sha256")], rows)
    else:
        yield say("page.no_provenance")


def _commands(seen: View, say: Words) -> Iterable[str]:
    if not seen["rederive"]:
        return
    text = "\n".join(seen["rederive"])
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    yield f"## {say('page.rederive')}"
    yield f"{fence}sh\n{text}\n{fence}"


def _table(names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> str:
    lines = [names, ["---"] * len(names)] if not rows else [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(cell if cell == "---" else plain(cell or "–") for cell in line) + " |" for line in lines)
