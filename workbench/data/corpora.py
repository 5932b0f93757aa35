"""Public texts in the splits that published figures use, or in splits of our own where upstream has none at hand."""

from __future__ import annotations

import re

from workbench.core.errors import CorruptFile
from workbench.data.sources import read_text

_HEADING = re.compile(r"^ = [^=].*[^=] = \n", re.MULTILINE)


def tinyshakespeare() -> dict[str, str]:
    """Training and validation text: the first nine tenths of the characters and the rest, as nanoGPT cuts it."""
    text = read_text("tinyshakespeare")
    cut = int(len(text) * 0.9)
    return {"train": text[:cut], "validation": text[cut:]}


def wikitext_articles() -> list[str]:
    """The articles of WikiText-2's validation file, each from its heading on, in order."""
    text = read_text("wikitext-2", "valid.txt")
    starts = [m.start() for m in _HEADING.finditer(text)]
    if len(starts) < 10:
        raise CorruptFile("wikitext-2/valid.txt", "a text of at least 10 articles", f"{len(starts)} headings were found")
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


def wikitext2() -> dict[str, list[str]]:
    """Articles in our own split: of every ten in order, eight for training, the ninth for validation, the tenth for test.

    It is a split of upstream's validation file, so figures on it compare with each other and with nothing published.
    """
    articles = wikitext_articles()
    return {
        "train": [a for i, a in enumerate(articles) if i % 10 < 8],
        "validation": articles[8::10],
        "test": articles[9::10],
    }
