"""Sentences of a treebank: words where they are in the text, and what is not one."""

from __future__ import annotations

import pytest

from workbench.core.errors import CorruptFile, MissingData
from workbench.data import sources, treebank
from workbench.data.treebank import parsed

TWO = """# sent_id = 1
# text = I don't  know.
1\tI\tI\tPRON\t_
2-3\tdon't\t_\t_\t_
2\tdo\tdo\tAUX\t_
3\tn't\tnot\tPART\t_
3.1\tunsaid\t_\tVERB\t_
4\tknow\tknow\tVERB\t_
5\t.\t.\tPUNCT\t_

# text = Go
1\tGo\tgo\tVERB\t_

"""


def test_words_lie_where_they_are() -> None:
    first, second = parsed(TWO)
    assert first.words == ("I", "do", "n't", "know", ".")
    assert first.tags == ("PRON", "AUX", "PART", "VERB", "PUNCT")
    assert [first.text[start:end] for start, end in first.spans] == list(first.words)
    assert second.words == ("Go",)


TREE = """# text = She reads old books.
1\tShe\tshe\tPRON\t_\t_\t2\tnsubj\t_\t_
2\treads\tread\tVERB\t_\t_\t0\troot\t_\t_
3\told\told\tADJ\t_\t_\t4\tamod\t_\t_
4\tbooks\tbook\tNOUN\t_\t_\t2\tobj:pass\t_\t_
5\t.\t.\tPUNCT\t_\t_\t2\tpunct\t_\t_
"""


def test_words_depend_on_their_heads() -> None:
    (found,) = parsed(TREE)
    assert found.heads == (1, -1, 3, 1, 1)
    assert found.relations == ("nsubj", "root", "amod", "obj", "punct")
    (first, _) = parsed(TWO)
    assert (first.heads, first.relations) == ((), ())


@pytest.mark.parametrize("change", [("\t4\tamod", "\t9\tamod"), ("\t0\troot", "\t4\troot")])
def test_what_is_no_tree_is_refused(change: tuple[str, str]) -> None:
    with pytest.raises(CorruptFile, match="a tree over each sentence's words"):
        list(parsed(TREE.replace(*change)))


def test_words_that_are_not_the_texts_are_refused() -> None:
    with pytest.raises(CorruptFile, match="not at character 2"):
        list(parsed(TWO.replace("do\tdo", "did\tdo")))
    with pytest.raises(CorruptFile, match="with a text for each sentence"):
        list(parsed(TWO.replace("# text = Go", "# Go")))


def test_the_files() -> None:
    if not sources.available(treebank.NAME):
        pytest.skip(str(MissingData(treebank.NAME, [])))
    for found, count, words in ((treebank.sentences("validation"), 2001, 25147), (treebank.sentences("test"), 2077, 25094)):
        assert all(len(one.heads) == len(one.relations) == len(one.words) and one.heads.count(-1) == 1 for one in found)
        assert (len(found), sum(len(one.words) for one in found)) == (count, words)
        assert len({tag for one in found for tag in one.tags}) == 17
