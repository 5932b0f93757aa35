"""``workbench runs``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table
from workbench.core.errors import StoreError

app = new_app("List runs, show one, draw its results.")
_FACTS = ("id", "kind", "ref", "status", "note", "created", "finished", "parent", "folder")


@app.command("list")
def list_runs(
    kind: Annotated[str, typer.Option(help="Only runs of this kind, such as eval.")] = "",
    status: Annotated[str, typer.Option(help="Only running, done, failed or interrupted ones.")] = "",
    most: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 30,
) -> None:
    """List the newest runs."""
    from workbench.store.runs import Store

    try:
        store = Store.open(create=False)
    except StoreError as error:
        if "there is none" not in str(error):
            raise
        show({"runs": [], "total": 0}, "There are no runs here yet.")
        return
    with store:
        found = store.runs.list(kind=kind, status=status)
    rows = [(r.id, r.created, r.kind, r.status, r.ref) for r in found[:most]]
    rest = [f"and {len(found) - most} more; --most {len(found)} shows them"] if len(found) > most else []
    lines = [*table(rows, ("run", "created (UTC)", "kind", "status", "of")), *rest] if rows else ["No run matches."]
    show({"runs": [record.to_dict() for record in found[:most]], "total": len(found)}, lines)


@app.command("show")
def show_run(run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, the beginning of it, or 'last'.")]) -> None:
    """Show one run: what was asked, how it stands, its samples, results and findings."""
    from workbench.store.runs import Store

    with Store.open(create=False) as store:
        record = store.runs.get(run)
        digests, samples = store.result_digests(record.id), store.sample_counts(record.id)
        results, findings = store.results(record.id), store.findings(record.id)
        children = store.runs.list(parent=record.id)
        folder = store.home / "runs" / record.id
    document: dict[str, Any] = record.to_dict() | {
        "samples": samples, "results": {name: {"digest": digests[name], "summary": one.summary()} for name, one in results.items()},
        "findings": [finding.model_dump(mode="json") for finding in findings], "children": [child.id for child in children],
        "folder": str(folder) if folder.exists() else "",
    }  # fmt: skip
    lines = [f"{name:<9} {document[name]}" for name in _FACTS if document[name]]
    lines += [f"{'samples':<9} {count} of {suite}" for suite, count in samples.items()]
    lines += [f"{'result':<9} {name}: {one.summary()} [{digests[name][:12]}]" for name, one in results.items()]
    lines += [f"{'finding':<9} {f.verdict}: {f.claim} ({f.subject}, {f.measure})" for f in findings]
    lines += [f"{'child':<9} {child.id} {child.kind} {child.status} {child.ref}" for child in children]
    show(document, lines)


@app.command("plot")
def plot_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, the beginning of it, or 'last'.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to: FILE.svg or FILE.png.")],
    result: Annotated[str, typer.Option(metavar="NAME", help="Which of its results; needed where there are several.")] = "",
) -> None:
    """Draw a stored result's own chart. Neither model nor data are needed."""
    from workbench.lab.figure import checked_place, draw, result_of
    from workbench.store.runs import Store

    place = checked_place(file)
    with Store.open(create=False) as store:
        name, found = result_of(store, run, result)
    draw(found, place)
    show({"result": name, "digest": found.digest(), "file": str(place)}, f"{place}  {name}")
