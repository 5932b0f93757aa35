"""Whether one stored report has the same bytes in every form when it is rendered in two fresh virtual environments.

``python benchmarks/byte_stable.py report.json`` (or ``--run RUN`` of a store) makes two environments with nothing in them but what
rendering needs, at the versions of constraints.txt, copies the package into each, and writes HTML, JSON, PDF, model card and bill of
materials in each: under another hash seed, locale, time zone, home and working folder. It prints the sha256 of each form and ends with 1
where two differ. Needs a package index for the two installations.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("pydantic", "pyyaml", "jinja2", "typst", "pandas", "numpy")
SURROUNDINGS = (
    {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
    {"PYTHONHASHSEED": "4242", "LC_ALL": "POSIX", "TZ": "Asia/Kathmandu", "PYTHONUTF8": "1"},
)
FORMS = ("report.html", "report.json", "report.pdf", "README.md", "model.cdx.json")
RENDER = """
import hashlib, json, sys
from pathlib import Path
from workbench.reports.render import bom, card, html, pdf
from workbench.reports.render import json as as_json
from workbench.reports.report import Report
report = Report.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
out = {}
for name, way in zip(sys.argv[3:], (html, as_json, pdf, card, bom)):
    made = way.render(report)
    content = made if isinstance(made, bytes) else made.encode()
    (Path(sys.argv[2]) / name).write_bytes(content)
    out[name] = [hashlib.sha256(content).hexdigest(), len(content)]
print(json.dumps({"forms": out, "torch": "torch" in sys.modules}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", nargs="?", help="a report.json as an audit writes it")
    parser.add_argument("--run", help="an audit of the environment's store ('last': the newest)")
    asked = parser.parse_args()
    if bool(asked.report) == bool(asked.run):
        parser.error("give a report.json or --run")
    source = Path(asked.report).resolve() if asked.report else _stored(asked.run)
    with tempfile.TemporaryDirectory(prefix="byte-stable-") as folder:
        found = [rendered(Path(folder) / f"fresh-{number}", source, around) for number, around in enumerate(SURROUNDINGS, start=1)]
        same = {name: _same(Path(folder), name) for name in FORMS}
    print("| form | bytes | sha256, first environment | second | same bytes |\n|---|--:|---|---|---|")
    for name in FORMS:
        (one, size), (other, _) = (each[name] for each in found)
        print(f"| {name} | {size:,} | {one[:16]}… | {other[:16]}… | {'yes' if same[name] else 'NO'} |")
    return 0 if all(same.values()) else 1


def _stored(run: str) -> Path:
    from workbench.lab.reporting import stored_report

    return stored_report(run).json


def _same(folder: Path, name: str) -> bool:
    return (folder / "fresh-1" / "out" / name).read_bytes() == (folder / "fresh-2" / "out" / name).read_bytes()


def rendered(place: Path, source: Path, around: dict[str, str]) -> dict[str, list]:
    """Every form, made in a fresh environment in ``place``: sha256 and size by name."""
    python = place / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
    constraints = ROOT / "constraints.txt"
    subprocess.run([str(python), "-m", "pip", "install", "-q", "-c", str(constraints), *NEEDED], check=True)
    package = place / "package"
    shutil.copytree(ROOT / "workbench", package / "workbench", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("home", "work", "out"):
        (place / folder).mkdir()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(package), "HOME": str(place / "home"), **around}
    command = [str(python), "-c", RENDER, str(source), str(place / "out"), *FORMS]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=place / "work")
    answer = json.loads(said.stdout.splitlines()[-1])
    assert not answer["torch"], "a report is rendered without torch"
    return answer["forms"]


if __name__ == "__main__":
    sys.exit(main())
