"""A chart as one piece of SVG: no script, no link, no font to fetch, the same bytes for the same chart."""

from __future__ import annotations

import hashlib
import importlib
import re
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from workbench.core.charts.frame import altair, theme
from workbench.core.errors import BadValue, MissingExtra

_OPEN = re.compile(r"<svg\b[^>]*>")
_ID = re.compile(r'\bid="([^"]+)"')


def to_svg(chart: Any, *, title: str | None = None, desc: str | None = None, dark: bool = False) -> str:
    """``chart`` as SVG text with ``role="img"``, ``aria-label``, ``<title>`` and ``<desc>`` for a screen reader.

    ``title`` and ``desc`` default to the chart's own title and description. Raises MissingExtra without vl-convert, and
    BadValue for a chart that has no title or takes its data from elsewhere.
    """
    spec = chart.to_dict()
    spec["config"] = {**theme(dark=dark), **_own(spec.get("config", {})), "aria": False}
    title = title or _words(spec.get("title"))
    if not title:
        raise BadValue("title", title, "a sentence that says what the chart shows", do="A chart without one cannot be read aloud.")
    _refuse_links(spec)
    text = _vl_convert().vegalite_to_svg(spec, vl_version=_version(), allowed_base_urls=[])
    return _accessible(_own_ids(text), title, desc or str(spec.get("description", "")))


def to_png(chart: Any, *, scale: float = 2.0, dark: bool = False) -> bytes:
    """``chart`` as PNG, ``scale`` pixels a unit: for where SVG cannot go."""
    return _vl_convert().svg_to_png(to_svg(chart, dark=dark), scale=scale)


def _vl_convert() -> Any:
    try:
        return importlib.import_module("vl_convert")
    except ImportError:
        raise MissingExtra("vl-convert-python", "report", "Writing a chart as SVG") from None


def _version() -> str:
    """The Vega-Lite version that altair writes for, where the converter has it, else the converter's newest."""
    asked = ".".join(altair().SCHEMA_VERSION.lstrip("v").split(".")[:2])
    known = _vl_convert().get_vegalite_versions()
    return asked if asked in known else known[-1]


def _own(config: dict[str, Any]) -> dict[str, Any]:
    """The chart's own settings, without the view size that altair adds to every chart."""
    view = {k: v for k, v in config.get("view", {}).items() if k not in ("continuousWidth", "continuousHeight")}
    rest = {k: v for k, v in config.items() if k != "view"}
    return {**rest, "view": {"stroke": None, **view}} if view else rest


def _words(title: Any) -> str:
    """A title's text, whether a string, a list of lines or an object."""
    text = title.get("text") if isinstance(title, dict) else title
    return " ".join(text) if isinstance(text, list) else str(text or "")


def _refuse_links(part: Any) -> None:
    """A chart draws what it is given: ``url`` data would be fetched."""
    if isinstance(part, dict):
        if isinstance(part.get("url"), str):
            raise BadValue("the chart's data", part["url"], "given inline, not fetched")
        for key, inner in part.items():
            if key != "datasets":
                _refuse_links(inner)
    elif isinstance(part, list):
        for inner in part:
            _refuse_links(inner)


def _own_ids(text: str) -> str:
    """Ids by order and content: the converter counts clip paths up over the process, so a second drawing would differ,
    and two charts in one page would share ids that mean different shapes."""
    names = list(dict.fromkeys(_ID.findall(text)))
    for i, name in enumerate(names):
        text = re.sub(rf'(?<=id="){re.escape(name)}(?=")|(?<=#){re.escape(name)}(?=["\')])', f"\0{i}\0", text)
    stem = hashlib.sha256(text.encode()).hexdigest()[:10]
    return re.sub("\0(\\d+)\0", lambda m: f"c{stem}-{m[1]}", text)


def _accessible(text: str, title: str, desc: str) -> str:
    opening = _OPEN.match(text)
    assert opening, "vl-convert gives one svg element"
    tag = opening[0]
    if "xlink:" not in text[opening.end() :]:
        tag = tag.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    tag = f'{tag[:-1]} role="img" aria-label={quoteattr(title)}>'
    said = f"<title>{escape(title)}</title>" + (f"<desc>{escape(desc)}</desc>" if desc else "")
    return tag + said + text[opening.end() :]
