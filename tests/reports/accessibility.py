"""What a page must keep so that it can be read aloud, on paper and without a network, as a checker in plain Python."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from html.parser import HTMLParser

VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})
LOADING = ("src", "srcset", "href", "xlink:href", "data", "action", "formaction", "poster", "background", "ping", "manifest")
RUNNING = ("script", "iframe", "object", "embed", "link", "base", "form", "video", "audio", "img", "foreignobject", "input", "button")


APART = {"header": ("article", "section"), "footer": ("article", "section"), "title": ("svg",)}


class Page(HTMLParser):
    """The page as a flat list of open tags with their ancestors, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str], tuple[int, ...]]] = []
        self.texts: list[tuple[str, tuple[int, ...]]] = []
        self.unbalanced: list[str] = []
        self._open: list[int] = []
        self._from: dict[int, int] = {}  # of an open tag: how many texts came before it
        self._to: dict[int, tuple[int, int]] = {}  # of a closed one: how many tags and texts had come by then
        self.feed(text)
        self.close()
        self.unbalanced += [self.tags[i][0] for i in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}, tuple(self._open)))
        if tag not in VOID:
            self._open.append(len(self.tags) - 1)
            self._from[len(self.tags) - 1] = len(self.texts)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}, tuple(self._open)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self.tags[self._open[-1]][0] != tag:
            self.unbalanced.append(tag)
            return
        self._to[self._open.pop()] = (len(self.tags), len(self.texts))

    def handle_data(self, data: str) -> None:
        self.texts.append((data, tuple(self._open)))

    def named(self, *names: str) -> list[tuple[int, dict[str, str]]]:
        return [(i, attrs) for i, (tag, attrs, _) in enumerate(self.tags) if tag in names]

    def inside(self, index: int, *names: str) -> bool:
        return any(self.tags[i][0] in names for i in self.tags[index][2])

    def children(self, index: int, *names: str) -> list[int]:
        end = self._to.get(index, (len(self.tags), 0))[0] if index in self._from else index
        return [i for i in range(index + 1, end) if self.tags[i][0] in names]

    def text_of(self, index: int) -> str:
        if index not in self._from:
            return ""
        end = self._to.get(index, (0, len(self.texts)))[1]
        return "".join(data for data, _ in self.texts[self._from[index] : end]).strip()


@lru_cache(maxsize=2)
def parsed(text: str) -> Page:
    """The page of ``text``, read once for all that is asked about it."""
    return Page(text)


def problems(text: str) -> list[str]:
    """Every rule the page breaks, in words; empty when it keeps all."""
    page = parsed(text)
    return [*_document(page), *_headings(page), *_tables(page), *_figures(page), *_addresses(page), *_acting(page, text)]


def _document(page: Page) -> list[str]:
    out = [f"the tag <{tag}> is not closed in its place" for tag in page.unbalanced]
    html = page.named("html")
    if len(html) != 1 or not html[0][1].get("lang"):
        out.append("the page does not name its language")
    for name in ("title", "main", "header", "footer", "h1"):
        found = [i for i, _ in page.named(name) if not page.inside(i, *APART.get(name, ()))]
        if len(found) != 1 or (name in ("title", "h1") and not page.text_of(found[0])):
            out.append(f"there must be one <{name}> with content, not {len(found)}")
    out += ["a <nav> has no name" for _, attrs in page.named("nav") if not (attrs.get("aria-label") or attrs.get("aria-labelledby"))]
    out += [
        "the page forbids zooming"
        for _, a in page.named("meta")
        if a.get("name") == "viewport" and ("user-scalable" in a["content"] or "maximum-scale" in a["content"])
    ]
    if not any(a.get("http-equiv") == "Content-Security-Policy" and "default-src 'none'" in a["content"] for _, a in page.named("meta")):
        out.append("no policy forbids fetching")
    first = [a.get("href") for _, a in page.named("a")][:1]
    if not first or not first[0] or not first[0].startswith("#"):
        out.append("the first link does not skip to the content")
    return out


def _headings(page: Page) -> list[str]:
    out, before = [], 0
    for index, _ in page.named("h1", "h2", "h3", "h4", "h5", "h6"):
        level = int(page.tags[index][0][1])
        if level > before + 1:
            out.append(f"a heading of level {level} follows one of level {before}")
        if not page.text_of(index):
            out.append("a heading is empty")
        before = level
    return out


def _tables(page: Page) -> list[str]:
    out = []
    for index, _ in page.named("table"):
        captions = page.children(index, "caption")
        if len(captions) != 1 or not page.text_of(captions[0]):
            out.append("a table has no caption")
        heads = [page.tags[i][1].get("scope") for i in page.children(index, "th")]
        if "col" not in heads or any(scope not in ("col", "row", "rowgroup") for scope in heads):
            out.append("a table has header cells without a scope, or none")
        if not any("scroll" in page.tags[i][1].get("class", "") and page.tags[i][1].get("tabindex") == "0" for i in page.tags[index][2]):
            out.append("a wide table could not be scrolled by keyboard")
    return out


def _figures(page: Page) -> list[str]:
    out = []
    for index, _ in page.named("figure"):
        drawings = [i for i in page.children(index, "svg") if page.tags[i][1].get("role") == "img"]
        if len(drawings) != 1 or not _described(page, drawings[0]):
            out.append("a figure has no picture with a description")
        details = page.children(index, "details")
        if not details or not page.children(details[0], "summary") or not page.children(details[0], "table"):
            out.append("a figure has no table beside it")
        if not page.children(index, "figcaption"):
            out.append("a figure has no caption")
    for index, attrs in page.named("svg"):
        if attrs.get("role") == "img" and _described(page, index):
            continue
        if attrs.get("aria-hidden") != "true" and not any(page.tags[i][1].get("aria-hidden") == "true" for i in page.tags[index][2]):
            out.append("a drawing is read aloud shape by shape")
    for index, (_, attrs, _) in enumerate(page.tags):
        if attrs.get("class", "").startswith("verdict ") and (not page.text_of(index) or not page.children(index, "use")):
            out.append("a verdict is not both word and shape")
    return out


def _described(page: Page, index: int) -> bool:
    """Whether a drawing is labelled by a title and a description of its own, both with words."""
    label = page.tags[index][1].get("aria-labelledby", "").split()
    said = {page.tags[i][1].get("id"): page.text_of(i) for i in page.children(index, "title", "desc")}
    return len(label) == 2 and all(said.get(name) for name in label)


def _addresses(page: Page) -> list[str]:
    ids = Counter(attrs["id"] for _, attrs, _ in page.tags if "id" in attrs)
    out = [f"the id '{name}' is used {count} times" for name, count in ids.items() if count > 1]
    for _, attrs, _ in page.tags:
        wanted = [*attrs.get("aria-labelledby", "").split(), *attrs.get("aria-describedby", "").split()]
        wanted += [attrs["href"][1:]] if attrs.get("href", "").startswith("#") else []
        wanted += re.findall(r"url\(#([^)]*)\)", " ".join(attrs.values()))
        out += [f"'{name}' is pointed at and not there" for name in wanted if name not in ids]
        if int(attrs.get("tabindex", "0")) > 0:
            out.append("the keyboard order is forced")
    return out


def _acting(page: Page, text: str) -> list[str]:
    out = [f"the page holds <{tag}>" for tag, _, _ in page.tags if tag in RUNNING]
    for tag, attrs, _ in page.tags:
        out += [f"<{tag}> would act ({name})" for name in attrs if name.startswith("on")]
        out += [
            f"<{tag}> would load {attrs[name][:40]!r}"
            for name in LOADING
            if name in attrs and not attrs[name].startswith(("#", "data:image/png;base64,"))
        ]
        if re.search(r"url\(\s*['\"]?(?!#)", " ".join(attrs.values())):
            out.append(f"<{tag}> would load something by its style")
    styles = " ".join(data for data, above in page.texts if above and page.tags[above[-1]][0] == "style")
    if re.search(r"@import|url\(|expression\(", styles):
        out.append("the style sheet would load something")
    if "\x00" in text:
        out.append("the page holds a NUL")
    return out


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of ``#rrggbb``."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast ratio (WCAG 2) of two colours, 1 to 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def themes(css: str) -> dict[str, dict[str, str]]:
    """The colour variables of each ``:root`` block: light, dark, print, in this order in the sheet."""
    blocks = re.findall(r":root\s*\{([^}]*)\}", css)
    return {
        name: dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block))
        for name, block in zip(("light", "dark", "print"), blocks, strict=True)
    }
