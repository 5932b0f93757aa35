"""Drawings that may enter a report: parsed, checked against short lists, and written out again.

An SVG inside HTML can carry scripts, styles and addresses. Nothing here is repaired by search and replace: the drawing is
read as XML, what is known to be harmless is written anew, and what could act or fetch is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from xml.etree import ElementTree as ET

from workbench.core.errors import BadValue
from workbench.reports.phrases import visible

_SPACE = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_ELEMENTS_TEXT = (
    "svg g path line rect circle ellipse polyline polygon text tspan defs clipPath linearGradient radialGradient stop "
    "mask pattern marker symbol use image"
)
ELEMENTS = frozenset(_ELEMENTS_TEXT.split())
DROPPED = frozenset({"title", "desc", "metadata"})  # the figure's own label says it; a browser would show a second tooltip
_ATTRIBUTES_TEXT = (
    "id x y x1 y1 x2 y2 cx cy r rx ry fx fy d points width height viewBox transform gradientTransform gradientUnits offset "
    "preserveAspectRatio clip-path clip-rule clipPathUnits mask fill fill-opacity fill-rule stroke stroke-width stroke-opacity "
    "stroke-dasharray stroke-dashoffset stroke-linecap stroke-linejoin stroke-miterlimit opacity stop-color stop-opacity display "
    "visibility font-family font-size font-style font-weight text-anchor dominant-baseline alignment-baseline baseline-shift dx dy "
    "letter-spacing text-decoration rotate patternUnits patternTransform markerWidth markerHeight refX refY orient marker-start "
    "marker-mid marker-end vector-effect shape-rendering text-rendering image-rendering"
)
ATTRIBUTES = frozenset(_ATTRIBUTES_TEXT.split())
_NUMBERS_TEXT = "d points transform x y x1 y1 x2 y2 cx cy r rx ry dx dy width height"
_NUMBERS = frozenset(_NUMBERS_TEXT.split())
_LONG = re.compile(r"-?\d+\.\d{4,}(?![\de])")
_REFERENCE = re.compile(r"url\(\s*['\"]?#([\w.-]+)['\"]?\s*\)")
_RASTER = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=\s]+")


def clean(svg: str) -> str:
    """``svg`` written anew from known elements and attributes, ids numbered in order: equal pictures, equal bytes.

    (A drawing library may count its ids on from the picture before.) Cleaning again changes nothing. Raises BadValue for
    anything that could run, fetch or point outside the drawing, and for what is not one SVG document.
    """
    root = _parse(svg)
    ids = [element.get("id", "") for element in root.iter() if "id" in element.attrib]
    names = {name: f"d{number}" for number, name in enumerate(dict.fromkeys(ids))}
    return _written(root, names, f' xmlns="{_SPACE[1:-1]}"')


def inline(svg: str, prefix: str, *, title: str, desc: str) -> str:
    """A cleaned drawing as markup inside a page: its ids begin with ``prefix``, and readers hear ``title`` and ``desc`` in its place."""
    root = _parse(svg)
    names = {name: prefix + name for element in root.iter() if (name := element.get("id"))}
    label, described = f"{prefix}title", f"{prefix}desc"
    said = f'<title id="{label}">{escape(visible(title))}</title><desc id="{described}">{escape(visible(desc))}</desc>'
    opening = f' role="img" aria-labelledby="{label} {described}" focusable="false"'
    return _written(root, names, opening, said)


def _parse(svg: str) -> ET.Element:
    if "<!DOCTYPE" in svg or "<!ENTITY" in svg:
        raise BadValue("a figure's drawing", "a document type declaration", "plain SVG without one")
    try:
        root = ET.fromstring(svg)
    except ET.ParseError as error:
        raise BadValue("a figure's drawing", f"text that is not XML ({error})", "one SVG document") from None
    if root.tag != f"{_SPACE}svg":
        raise BadValue("a figure's drawing", root.tag, "an SVG document")
    if "viewBox" not in root.attrib:
        root.set("viewBox", f"0 0 {root.get('width', '640').removesuffix('px')} {root.get('height', '360').removesuffix('px')}")
    return root


def _written(root: ET.Element, names: Mapping[str, str], first: str, said: str = "") -> str:
    out: list[str] = []
    _write(root, names, out, first, said)
    return "".join(out)


def _write(element: ET.Element, names: Mapping[str, str], out: list[str], first: str = "", said: str = "") -> None:
    if not isinstance(element.tag, str):
        return  # a comment or processing instruction
    name = element.tag.removeprefix(_SPACE)
    if name in DROPPED:
        return
    if name not in ELEMENTS:
        raise BadValue("a figure's drawing", f"the element <{name}>", "made of shapes and text only")
    out.append(f"<{name}{first}")
    for key, value in element.attrib.items():
        if kept := _attribute(name, key, value, names):
            out.append(f' {kept[0]}="{escape(visible(kept[1]))}"')
    if not element.text and len(element) == 0 and not said:
        out.append("/>")
        return
    out.append(f">{said}{escape(visible(element.text or ''))}")
    for child in element:
        _write(child, names, out)
        if name in ("text", "tspan"):
            out.append(escape(visible(child.tail or "")))
    out.append(f"</{name}>")


def _attribute(element: str, key: str, value: str, names: Mapping[str, str]) -> tuple[str, str] | None:
    """The attribute as it may stay, or None where it is only dropped; raises where it could act."""
    if key.lower().startswith("on") or "javascript:" in value.lower():
        raise BadValue("a figure's drawing", f"the attribute {key}={value[:40]!r}", "free of scripts")
    if key in ("href", _LINK):
        if value[:1] == "#" and value[1:] in names:
            return "href", f"#{names[value[1:]]}"
        if element == "image" and _RASTER.fullmatch(value):
            return "href", value
        raise BadValue("a figure's drawing", f"the address {value[:40]!r}", "self-contained, without addresses")
    if key not in ATTRIBUTES:
        return None
    if "url(" in value.lower():
        match = _REFERENCE.fullmatch(value.strip())
        if match is None or match[1] not in names:
            raise BadValue("a figure's drawing", f"the address {value[:40]!r}", "self-contained, without addresses")
        return key, f"url(#{names[match[1]]})"
    if key == "id":
        return key, names[value]
    return key, _LONG.sub(_shorter, value) if key in _NUMBERS else value


def _shorter(match: re.Match[str]) -> str:
    """A coordinate to a thousandth of a unit, which no screen or printer shows; very small factors are left alone."""
    value = float(match[0])
    return match[0] if abs(value) < 0.01 else f"{value:.3f}".rstrip("0").rstrip(".")
