"""The report as PDF: tagged, with bookmarks, the same bytes for the same report, and no character that no font can show.

The layout is ``report.typ`` beside this file; every text reaches it as a value. The compiler's own fonts are used and no others, so
that the bytes do not depend on the machine; Chinese needs one font family more, which is looked for in a few known folders.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from workbench.core.errors import AssayError, BadValue, MissingExtra
from workbench.core.spec import canonical_json
from workbench.reports.phrases import number
from workbench.reports.report import Report
from workbench.reports.view import view
from workbench.reports.words import ENGLISH, flat_english, words_of

MOST_BYTES = 3_000_000
MOST_ROWS = 60
STANDARD = "ua-1"
"""PDF/UA-1: tags, language, title and alternative texts are checked by the compiler, as is that every character has a shape."""

EMBEDDED = ("Libertinus Serif", "DejaVu Sans Mono", "New Computer Modern", "New Computer Modern Math")
CHINESE = "Noto Serif CJK SC"
CHINESE_FOLDERS = ("/usr/share/fonts/opentype/noto", "/usr/share/fonts/noto-cjk", "/usr/share/fonts/google-noto-cjk")
MONO = "DejaVu Sans Mono"
_TEXT_WIDTH = 482  # points between the margins of the page
_MOST_HEIGHT = 560  # points, so that a heading stands above its drawing
_HERE = Path(__file__).parent
_UNSHOWN = re.compile(r'the text `"(.*?)"` could not be displayed', re.DOTALL)
_ESCAPED = re.compile(r"\\u\{([0-9a-f]+)\}")
_PLAIN = re.compile(r"[\x20-\x7e\n\t\u00a0-\u017f]+")
_TRIES = 4


def render(report: Report, *, language: str = ENGLISH, most_bytes: int = MOST_BYTES) -> bytes:
    """The whole document. Equal reports and languages give equal bytes.

    A character for which no font has a shape stands as ``⟨U+4E2D⟩``. Raises MissingExtra without typst, AssayError where a language's
    font is not installed, and BadValue when the document is larger than ``most_bytes``.
    """
    fonts = _fonts(language)
    families = (EMBEDDED[0], *([CHINESE] if _needs_chinese(language) else []), *EMBEDDED[1:])
    content = _content(report, language, families)
    shown = json.loads(_replaced(canonical_json(content), _unshown(canonical_json(content), fonts, families)))
    for _ in range(_TRIES):
        made, missing = _compiled((_HERE / "report.typ").read_bytes(), shown, fonts)
        if made is not None:
            break
        shown = json.loads(_replaced(canonical_json(shown), missing))
    else:
        raise AssayError("The PDF could not be written: some text has characters that no font can show. The HTML report shows them.")
    if len(made) > most_bytes:
        raise BadValue(
            "the PDF's size", f"{len(made) / 1e6:.2f} MB", f"at most {most_bytes / 1e6:.2f} MB",
            do="Draw fewer marks or shorten tables; the stored results keep all.",
        )  # fmt: skip
    return made


def _content(report: Report, language: str, families: Sequence[str]) -> dict[str, Any]:
    """What the layout is given: the view with its drawings, the report's own words and the fonts."""
    say, seen = words_of(language), view(report, language)
    for place, (section, part) in enumerate(zip(report.sections, seen["sections"], strict=True)):
        part["tables"] = [_on_paper(table, language) for table in part["tables"]]
        for index, (figure, shown) in enumerate(zip(section.figures, part["figures"], strict=True)):
            shown["table"] = _on_paper(shown["table"], language)
            shown |= {"svg": figure.svg, "width": _share(figure.svg), "address": f"figure-{place}-{index}"}
    primary, _, script = say.tag.partition("-")
    return {
        "view": seen,
        "words": {key: say(key) for key, text in flat_english().items() if isinstance(text, str)},
        "crosswalk_head": say.list("crosswalk.head"),
        "language": language,
        "lang": primary,
        "region": "cn" if script == "Hans" else None,
        "fonts": families,
        "mono": (MONO, *families),
    }


def _on_paper(table: dict[str, Any], language: str) -> dict[str, Any]:
    """The beginning of a long table, with a word on the rest: paper has no scroll bar."""
    rows = table["rows"]
    if len(rows) <= MOST_ROWS:
        return table
    cut = words_of(language)("page.rows_on_paper", shown=number(MOST_ROWS), all=number(len(rows)))
    return table | {"rows": rows[:MOST_ROWS], "note": f"{cut} {table['note']}".strip()}


def _share(svg: str) -> float:
    """How much of the text's width a drawing takes, in per cent: its own size, but no more than all and no higher than ``_MOST_HEIGHT``."""
    box = ET.fromstring(svg).get("viewBox", "").split()
    if len(box) != 4:
        return 100.0
    width, height = float(box[2]), max(1.0, float(box[3]))
    return 100 * min(_TEXT_WIDTH, 0.75 * width, _MOST_HEIGHT * width / height) / _TEXT_WIDTH


def _needs_chinese(language: str) -> bool:
    return words_of(language).tag.startswith("zh")


@cache
def _typst() -> Any:
    try:
        return importlib.import_module("typst")
    except ImportError:
        raise MissingExtra("typst", "report", "The PDF report") from None


def _fonts(language: str) -> Any:
    """The compiler's own fonts, and the Chinese ones where the language needs them. Raises AssayError where they are not installed."""
    folders = [folder for folder in CHINESE_FOLDERS if Path(folder).is_dir()][:1] if _needs_chinese(language) else []
    fonts = _typst().Fonts(include_system_fonts=False, include_embedded_fonts=True, font_paths=folders)
    if _needs_chinese(language) and CHINESE not in fonts.families():
        raise AssayError(
            f"The PDF in {words_of(language)('language.name')} needs the font '{CHINESE}', which is not installed: "
            "install the package fonts-noto-cjk, or write the HTML report, which uses the reader's own fonts."
        )
    return fonts


def _compiled(source: bytes, content: Any, fonts: Any) -> tuple[bytes | None, set[str]]:
    """The document, or None and the characters without a shape for which it was refused."""
    typst = _typst()
    compiler = typst.Compiler(source, font_paths=fonts, ignore_system_fonts=True, sys_inputs={"data": canonical_json(content)})
    try:
        return compiler.compile(format="pdf", pdf_standards=[STANDARD]), set()
    except typst.TypstError as error:
        missing = {character for text in _UNSHOWN.findall(error.diagnostic) for character in _unescaped(text)}
        if not missing:
            raise AssayError(
                f"The PDF could not be laid out ({' '.join(str(error.message).split())[:300]}). The HTML report has it all."
            ) from None
        return None, {character for character in missing if not _PLAIN.fullmatch(character)} or missing


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


_PROBE = b"""#let data = json(bytes(sys.inputs.data))
#set document(title: "probe", date: none)
#set text(font: data.fonts, lang: "en")
#for c in data.characters { box(c) + [ ] }
"""


def _unshown(text: str, fonts: Any, families: Sequence[str]) -> set[str]:
    """Of the characters in ``text`` those for which none of the fonts has a shape: asked of the compiler, all at once."""
    characters = sorted(set(_PLAIN.sub("", text)))
    return _compiled(_PROBE, {"characters": characters, "fonts": families}, fonts)[1] if characters else set()


def _replaced(text: str, characters: Collection[str]) -> str:
    """``text`` with each of ``characters`` shown by its number."""
    return text.translate({ord(character): f"⟨U+{ord(character):04X}⟩" for character in characters}) if characters else text
