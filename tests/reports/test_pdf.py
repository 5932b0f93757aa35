"""The PDF: tagged, with bookmarks, every figure and word in it, hostile text inert, the same bytes in every process."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.reports.sample import sample
from tests.reports.test_html import PAYLOADS, hostile
from workbench.core.errors import AssayError, BadValue, MissingExtra
from workbench.reports import phrases
from workbench.reports.render import pdf
from workbench.reports.report import Report
from workbench.reports.view import view

pytestmark = pytest.mark.full
needs_poppler = pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext (poppler-utils) is not installed")


@cache
def made(text: str = "", language: str = "en") -> bytes:
    return pdf.render(hostile(text) if text else sample(), language=language, most_bytes=20_000_000)


def text_of(content: bytes) -> str:
    """The words of a PDF, whitespace as single spaces, with what stands across a line's end joined where it was one word."""
    done = subprocess.run(["pdftotext", "-raw", "-", "-"], input=content, capture_output=True, check=True)
    return " ".join(done.stdout.decode().split())


def letters(text: str) -> str:
    """All but whitespace: a long word is broken over lines at places that the layout chooses."""
    return "".join(text.split())


def test_it_is_tagged_titled_and_has_bookmarks_and_no_time() -> None:
    content = made()
    assert content.startswith(b"%PDF-1.7")
    for part in (b"/StructTreeRoot", b"/MarkInfo", b"/Outlines", b"/Lang(en)", b"pdfuaid:part"):
        assert part in content, part
    for part in (b"CreationDate", b"ModDate", b"/URI", b"/JavaScript", b"/JS", b"/Launch", b"/EmbeddedFile", b"/AcroForm"):
        assert part not in content, part
    assert len(content) < 600_000


def test_the_fonts_are_the_compilers_own() -> None:
    names = set(re.findall(rb"/BaseFont/[A-Z]{6}\+([A-Za-z0-9]+)", made()))
    assert {name.decode()[:14] for name in names} <= {"LibertinusSeri", "DejaVuSansMono"}, names


@needs_poppler
def test_every_word_of_the_view_is_on_paper() -> None:
    said, seen = letters(text_of(made())), view(sample())
    missing = []
    for f in seen["findings"]:
        wanted = [f["claim"], f["effect"], f["interval"], f["method"], f["verdict"], f["because"], f["scored"], f["null_value"]]
        wanted += [text for _, text, _ in f["facts"]] + [text for pair in f["details"] for text in pair]
        missing += [text for text in wanted if letters(text) not in said]
    tables = [
        *seen["identity"],
        *seen["coverage"],
        *(t for s in seen["sections"] for t in [*s["tables"], *(f["table"] for f in s["figures"])]),
    ]
    missing += [cell for table in tables for row in table["rows"] for cell in row if cell is not None and letters(cell) not in said]
    missing += [text for part in seen["left_out"] for text in part.values() if letters(text) not in said]
    assert missing == []
    assert seen["digest"] in said


OURS = [PAYLOADS[number] for number in (0, 5, 10, 11, 12, 14, 16, 18, 20, 22)]


@needs_poppler
@pytest.mark.parametrize("payload", [*OURS, "x" * 400, "中文 กา 🈚 \ue000"], ids=range(len(OURS) + 2))
def test_hostile_text_is_text(payload: str) -> None:
    content = made(payload)
    for part in (b"/URI", b"/JavaScript", b"/Launch"):
        assert part not in content
    shown = letters(phrases.visible(payload))
    if shown.isascii():
        assert letters(text_of(content)).count(shown) >= 60
    if "中" in payload:
        assert "⟨U+4E2D⟩" in letters(text_of(content)), "never a box"


BYTES = """
import sys
from tests.reports.sample import sample
from workbench.reports.render import pdf
sys.stdout.buffer.write(pdf.render(sample()))
"""


def test_two_processes_give_the_same_bytes() -> None:
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", BYTES], capture_output=True, check=True, cwd=root).stdout
    assert other == made()


def test_a_report_too_large_and_an_empty_one() -> None:
    with pytest.raises(BadValue, match=r"the PDF's size .* at most 0\.01 MB"):
        pdf.render(sample(), most_bytes=10_000)
    assert pdf.render(Report(title="t", subject="s", date="d")).startswith(b"%PDF")


def test_without_the_compiler_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    pdf._typst.cache_clear()
    try:
        with pytest.raises(MissingExtra, match=r"The PDF report needs .*typst"):
            pdf.render(sample())
    finally:
        pdf._typst.cache_clear()


def test_chinese_needs_its_font_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pdf, "CHINESE_FOLDERS", (str(tmp_path),))
    with pytest.raises(AssayError, match=r"needs the font 'Noto Serif CJK SC', which is not installed: install the package fonts-noto-cjk"):
        pdf.render(sample(), language="zh")


@needs_poppler
@pytest.mark.skipif(not any(Path(folder).is_dir() for folder in pdf.CHINESE_FOLDERS), reason="fonts-noto-cjk is not installed")
def test_chinese_on_paper() -> None:
    said = letters(text_of(made(language="zh")))
    for words in ("审计报告", "模型的身份", "与各框架的对照", "对照不是合格评定", "检出"):
        assert words in said
    assert "⟨U+" not in said
    assert pdf.render(sample(), language="zh") == made(language="zh")
