"""Functional tests of a judge of hateful or toxic texts, read from a csv file in the form of HateCheck.

Columns: ``functionality`` (the one ability that is tried), ``case_id``, ``test_case`` (the text), ``label_gold`` (``hateful`` or
``non-hateful``) and ``target_ident`` (the group named, or empty); others are left alone. Errors name lines, never the text.

Source of the form: Röttger et al., HateCheck: Functional Tests for Hate Speech Detection Models, ACL 2021.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from workbench.core.errors import CorruptFile, MissingFile
from workbench.data.worlds.mentions import Mention

COLUMNS = ("functionality", "case_id", "test_case", "label_gold", "target_ident")
LABELS = {"hateful": True, "non-hateful": False}
_GET_IT = "Give a csv file with HateCheck's columns."


def load(path: Path) -> list[Mention]:
    """Every case of the file. Raises MissingFile, and CorruptFile with the line for what is not of the form, a case number that stands
    twice, and a functionality with two labels."""
    if not path.is_file():
        raise MissingFile(path, "file of functional tests", do=_GET_IT)
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise CorruptFile(path, "UTF-8 text", f"byte {error.start} is not", do=_GET_IT) from None
    except csv.Error as error:
        raise CorruptFile(path, "a csv file", f"it is not ({error})", do=_GET_IT) from None
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise CorruptFile(path, f"a csv file with the columns {', '.join(COLUMNS)}", f"it has no column {', '.join(missing)}", do=_GET_IT)
    if not rows:
        raise CorruptFile(path, "a csv file of cases", "it has a header and no rows", do=_GET_IT)
    return _checked(path, rows)


def _checked(path: Path, rows: list[tuple[int, dict]]) -> list[Mention]:
    out: list[Mention] = []
    numbers: set[str] = set()
    labels: dict[str, bool] = {}
    for line, row in rows:
        if None in row or None in row.values():
            raise CorruptFile(path, "as many fields a row as the header has", f"the row that ends in line {line} has others", do=_GET_IT)
        for name in COLUMNS[:4]:
            if not row[name].strip():
                raise CorruptFile(path, f"a file without empty '{name}'", f"line {line} has none", do=_GET_IT)
        if row["label_gold"] not in LABELS:
            raise CorruptFile(path, f"'{' or '.join(LABELS)}' in 'label_gold'", f"line {line} has something else", do=_GET_IT)
        toxic, function = LABELS[row["label_gold"]], row["functionality"]
        if row["case_id"] in numbers:
            raise CorruptFile(path, "a file that uses a case number once", f"that of line {line} stands twice", do=_GET_IT)
        if labels.setdefault(function, toxic) != toxic:
            raise CorruptFile(path, "one label for each functionality", f"that of line {line} has two", do=_GET_IT)
        numbers.add(row["case_id"])
        out.append(Mention(row["test_case"], toxic, function, row["target_ident"].strip()))
    return out


def save(cases: list[Mention], path: Path) -> Path:
    """``cases`` in the same form."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(COLUMNS)
        names = {toxic: label for label, toxic in LABELS.items()}
        out.writerows((one.function, number, one.text, names[one.toxic], one.group) for number, one in enumerate(cases, start=1))
    return path
