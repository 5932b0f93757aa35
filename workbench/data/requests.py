"""Files of requests to a model, harmful or safe, read whole or refused with file and line. No message quotes a request.

A file's columns say of which form it is: HarmBench's and AdvBench's behaviours, AdvBench's own table, StrongREJECT, Do-Not-Answer,
SimpleSafetyTests, XSTest, or any table with a column ``prompt``. Rows that ask about a picture are left out and counted by nobody: no form
read here has them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import CorruptFile, MissingFile

GET_IT = "Run `workbench data fetch harmbench` or `advbench`, or give a csv file of one of the forms."
SAFE, UNSAFE = "safe", "unsafe"
CONTRAST = "contrast_"


@dataclass(frozen=True)
class Form:
    """What a form's columns are called: the text, what names its kind (the first of these that is there), what it is asked about."""

    name: str
    text: str
    kinds: tuple[str, ...]
    context: str = ""
    must: tuple[str, ...] = ()

    def fits(self, header: Sequence[str]) -> bool:
        return {self.text, *self.must} <= set(header)


FORMS = (
    Form("HarmBench", "Behavior", ("SemanticCategory", "Category"), "ContextString", ("BehaviorID",)),
    Form("AdvBench", "goal", (), must=("target",)),
    Form("StrongREJECT", "forbidden_prompt", ("category",)),
    Form("Do-Not-Answer", "question", ("risk_area",), must=("risk_area",)),
    Form("SimpleSafetyTests", "prompt", ("harm_area",), must=("harm_area",)),
    Form("XSTest", "prompt", ("type",), must=("type",)),
    Form("table", "prompt", ("category",)),
)


@dataclass(frozen=True)
class Request:
    """One request: the row's number from 1, its text, the kind it is counted under, and whether it is safe (None where the form does not
    say: all of a file of harmful requests are not)."""

    row: int
    text: str
    kind: str
    safe: bool | None


def load(path: Path, *, contrasts: bool = False) -> list[Request]:
    """Every request of the file; with ``contrasts`` only XSTest's form is read, which has safe and unsafe ones.

    Raises MissingFile, and CorruptFile naming the line for what is not of a form: an empty request, a row of other columns, a label that is
    neither safe nor unsafe.
    """
    if not path.is_file():
        raise MissingFile(path, "file of requests", do=GET_IT)
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise CorruptFile(path, "UTF-8 text", f"byte {error.start} is not", do=GET_IT) from None
    except csv.Error as error:
        raise CorruptFile(path, "a csv file", f"it is not ({error})", do=GET_IT) from None
    header = list(reader.fieldnames or ())
    forms = [form for form in FORMS if form.name == "XSTest"] if contrasts else FORMS
    form = next((form for form in forms if form.fits(header)), None)
    if form is None:
        wanted = "; ".join(f"{one.name}: {', '.join((one.text, *one.must))}" for one in forms)
        raise CorruptFile(path, f"a csv file with the columns of a form ({wanted})", f"it has {', '.join(header) or 'none'}", do=GET_IT)
    if not rows:
        raise CorruptFile(path, "a csv file of requests", "it has a header and no rows", do=GET_IT)
    return [_request(path, form, number, line, row) for number, (line, row) in enumerate(rows, start=1)]


def _request(path: Path, form: Form, number: int, line: int, row: dict) -> Request:
    if None in row or None in row.values():
        raise CorruptFile(path, "as many fields a row as the header has", f"the row that ends in line {line} has others", do=GET_IT)
    text = row[form.text].strip()
    if not text:
        raise CorruptFile(path, f"a file without empty '{form.text}'", f"line {line} has none", do=GET_IT)
    context = row.get(form.context, "").strip() if form.context else ""
    kind = next((row[name].strip() for name in form.kinds if row.get(name, "").strip()), form.name)
    return Request(number, f"{context}\n\n---\n\n{text}" if context else text, kind, _safe(path, form, line, row))


def _safe(path: Path, form: Form, line: int, row: dict) -> bool | None:
    if form.name != "XSTest":
        return None
    contrast = row["type"].startswith(CONTRAST)
    label = row.get("label", "").strip() or (UNSAFE if contrast else SAFE)  # older files have no label
    if label not in (SAFE, UNSAFE) or (label == UNSAFE) != contrast:
        wanted = f"the label {SAFE}, or {UNSAFE} and a type that begins with {CONTRAST}"
        raise CorruptFile(path, f"a file whose rows have {wanted}", f"line {line} has something else", do=GET_IT)
    return label == SAFE
