"""``workbench runs``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table
from workbench.core.errors import StoreError

app = new_app("List runs, show one, draw its results; write it for other programs, and read what they wrote.")
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


@app.command("export")
def export_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An evaluation, audit or import: its id, the beginning of it, or 'last'.")],
    to: Annotated[
        str,
        typer.Option(metavar="FORMAT", help="lm-eval, inspect, every-eval-ever, model-index, junit, sarif, openmetrics or csv."),
    ] = "",
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where the files go (default: exports in the run's folder).")] = "",
    texts: Annotated[bool, typer.Option("--texts", help="Show texts that are masked for what they hold.")] = False,
    policy: Annotated[str, typer.Option(metavar="FILE", help="With junit or sarif: what may pass, as `workbench gate` reads it.")] = "",
) -> None:
    """Write a finished run as another program reads it. Neither model nor network is needed."""
    from workbench.core.errors import UsageError
    from workbench.lab.exporting import FORMATS, export
    from workbench.store.runs import Store

    if not to:
        raise UsageError(f"Which format? There are {', '.join(FORMATS)}: `workbench runs export {run} --to csv`.")
    with Store.open(create=False) as store:
        written = export(run, to, out, store=store, texts=texts, policy=policy)
    places = [str(place) for place in written.places]
    show({"format": to, "files": places, "notes": list(written.notes)}, [*places, *written.notes])


@app.command("import")
def import_run(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Samples of lm-evaluation-harness (.jsonl), or logs of Inspect (.eval, .json).")
    ],
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="What the model is called, where the files do not say.")] = "",
    cluster: Annotated[str, typer.Option(metavar="FIELD", help="A field of the samples: those that share it are drawn together.")] = "",
    group: Annotated[str, typer.Option(metavar="FIELD", help="A field of the samples by which they are told apart.")] = "",
) -> None:
    """Keep what another program asked and scored as a run, with our statistics; `workbench compare` then pairs two of them."""
    from workbench.lab.importing.run import import_files
    from workbench.store.runs import Store

    with Store.open() as store:
        made = import_files(files, store=store, model=model, cluster=cluster, group=group)
        digests = store.result_digests(made.run)
    results = {name: {"summary": one.summary(), "digest": digests[name]} for name, one in made.results.items()}
    findings = [finding.model_dump(mode="json") for finding in made.findings]
    lines = [
        *(one.summary() for one in made.results.values()),
        *made.notes,
        f"run {made.run}" + (f" of {made.model}" if made.model else ""),
    ]
    show({"run": made.run, "model": made.model, "results": results, "findings": findings, "notes": list(made.notes)}, lines)
