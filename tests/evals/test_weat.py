"""WEAT and SEAT: a planted association is found in vectors and encodings, a shuffled one is not; files whole or refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evals.bound import Bound, bound
from evals.runner import run_suite
from evals.suites.weat import SUITE, WeatResult, WeatSpec, associated, vectors
from evals.suites.weat_data import load, occupations
from workbench.core.errors import BadValue, CorruptFile, Incompatible, MissingFile
from workbench.core.finding import Verdict
from workbench.data import sources
from workbench.data.text import CharTokenizer
from workbench.engine.embed import embedded
from workbench.families.bert import BERT, BERTConfig
from workbench.families.gpt import GPT, GPTConfig

WORDS = {"x": "abcdefg", "y": "ijklmno", "a": "qrstuv", "b": "wxyzAB"}
"""A word is one letter, so that its vector is one row of the table."""


def document(sets: dict[str, Sequence[str]] | None = None) -> dict[str, Any]:
    sets = sets or {name: list(words) for name, words in WORDS.items()}
    return {
        key: {"category": f"set {name}", "examples": list(sets[name])}
        for key, name in zip(("targ1", "targ2", "attr1", "attr2"), "xyab", strict=True)
    }


def write(path: Path, found: Any = None) -> Path:
    path.write_text(json.dumps(document() if found is None else found), encoding="utf-8")
    return path


def tokenizer() -> CharTokenizer:
    return CharTokenizer.of("".join(WORDS.values()) + " .This")


def planted(dose: float, seed: int = 0) -> GPT:
    """A decoder in whose table the words of x lie towards those of a, and of y towards b, by ``dose`` of a unit."""
    words = tokenizer()
    model = GPT(GPTConfig(n_layers=1, d_model=32, n_heads=2, d_vocab=words.vocab_size, n_ctx=32), words, seed=seed).eval()
    by = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(2, 32, generator=by), dim=1)
    table = model.weight("W_E")
    with torch.no_grad():
        table.copy_(torch.nn.functional.normalize(torch.randn(table.shape, generator=by), dim=1))
        for name, sign in (("x", 0), ("y", 1), ("a", 0), ("b", 1)):
            for letter in WORDS[name]:
                table[words.encode(letter)[0]] += dose * directions[sign]
    return model


def asked(model: Any, folder: Path, **fields: Any) -> WeatResult:
    spec = WeatSpec.parse({"files": [str(write(folder / "letters.json"))], "views": ["embedding"], **fields})
    found = run_suite(bound(SUITE, model), model, spec)
    assert isinstance(found, WeatResult)
    return found


def test_a_planted_association_is_found_and_a_shuffled_one_is_not(tmp_path: Path) -> None:
    spec = {"templates": ["{}."], "views": ["embedding", "encoding"]}
    found = asked(planted(1.0), tmp_path, **spec)
    verdicts = {f.measure: f for f in SUITE.findings(found, subject="m")}
    one = verdicts["d, letters, embedding"]
    assert one.verdict == Verdict.DETECTED
    assert one.effect is not None
    assert one.effect > 1.2
    assert one.details["exact"]
    assert one.claim == "set x and set y stand apart along set a and set b"
    assert verdicts["d, letters, encoding"].verdict == Verdict.DETECTED  # a layer of random weights keeps what is planted
    shuffled = [SUITE.findings(asked(planted(0.0, seed), tmp_path), subject="m")[0] for seed in range(2)]
    assert [f.verdict for f in shuffled].count(Verdict.DETECTED) <= 1
    dealt = document({**{name: list(words) for name, words in WORDS.items()}, "x": "abcijkl", "y": "defgmno"})
    mixed = WeatSpec.parse({"files": [str(write(tmp_path / "mixed.json", dealt))], "views": ["embedding"]})
    model = planted(1.0)
    assert SUITE.findings(run_suite(bound(SUITE, model), model, mixed), subject="m")[0].verdict == Verdict.NOT_DETECTED


def test_a_reference_is_compared_on_the_same_words(tmp_path: Path) -> None:
    ours, theirs = asked(planted(1.0), tmp_path), asked(planted(0.0), tmp_path)
    against = SUITE.findings(ours, subject="m", reference=theirs)[1]
    d = [associated(one, "letters, embedding") for one in (ours, theirs)]
    assert d[0] is not None
    assert d[1] is not None
    assert against.effect == pytest.approx(d[0].d - d[1].d)
    assert against.verdict == Verdict.WORSE
    same = SUITE.findings(ours, subject="m", reference=ours)[1]
    assert same.effect == 0
    assert same.verdict == Verdict.NOT_DETECTED
    other = SUITE.findings(ours, subject="m", reference=asked(planted(0.0), tmp_path, files=[str(write(tmp_path / "z.json"))]))[1]
    assert other.effect is None
    assert other.denominators is not None
    assert other.denominators.unscored == {"not in the reference": 1}


def test_many_tests_are_held_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """p of 20 tests of nothing is adjusted over all of them: what is under 0.05 alone is not when asked with the rest."""
    files = []
    by = np.random.default_rng(2)
    for number in range(20):
        letters = by.permutation(list(WORDS["x"] + WORDS["y"]))
        sets = {"x": letters[:7].tolist(), "y": letters[7:].tolist(), "a": WORDS["a"], "b": WORDS["b"]}
        files.append(str(write(tmp_path / f"t{number}.json", document(sets))))
    found = SUITE.findings(asked(planted(0.0, 1), tmp_path, files=files), subject="m")
    assert min(f.details["p"] for f in found) < 0.05
    assert min(f.details["p_holm"] for f in found) > 0.05
    assert {f.verdict for f in found} == {Verdict.NOT_DETECTED}
    monkeypatch.setattr("evals.suites.weat.holm", lambda p: np.ones(len(p)))
    strict = SUITE.findings(asked(planted(1.0), tmp_path), subject="m")[0]
    assert strict.verdict == Verdict.NOT_DETECTED
    assert "p is 1 after Holm" in strict.because


def test_vectors_are_rows_of_the_table_and_means_of_streams(tmp_path: Path) -> None:
    model = planted(0.5)
    table = model.weight("W_E").detach().double().numpy()
    space, a, b = (tokenizer().encode(one)[0] for one in (" ", "a", "b"))
    expected = (table[space] + table[a] + table[b]) / 3
    np.testing.assert_allclose(vectors(model, ["ab"], "embedding", ())[0], expected / np.linalg.norm(expected), atol=1e-12)
    mean = embedded(model, ["This a.", "a."]).mean(0)
    np.testing.assert_allclose(vectors(model, ["a"], "encoding", ("This {}.", "{}."))[0], (mean / mean.norm()).numpy(), atol=1e-6)


def test_an_encoder_is_asked_too(tmp_path: Path) -> None:
    words = tokenizer()
    model = BERT(BERTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=words.vocab_size, n_ctx=32), words, seed=0).eval()
    found = asked(model, tmp_path, views=["embedding", "encoding"], templates=["{}."])
    assert found.values.attrs["asked"]["scored"] == 2


def test_a_word_that_cannot_be_spelt_leaves_its_test_unscored(tmp_path: Path) -> None:
    bad = document({**{name: list(words) for name, words in WORDS.items()}, "x": [*WORDS["x"], "ö"]})
    found = asked(planted(1.0), tmp_path, files=[str(write(tmp_path / "a.json")), str(write(tmp_path / "b.json", bad))])
    assert found.values.attrs["asked"]["scored"] == 1
    second = SUITE.findings(found, subject="m")[1]
    assert second.effect is None
    assert "ö" not in str(second)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([], "one json object"),
        ({}, "'targ1' with a list of words"),
        ({**document(), "attr2": {"category": "b", "examples": ["w", 3]}}, "'attr2' with a list"),
        ({**document(), "attr1": {"category": "a", "examples": ["q", "q", "q", "q"]}}, "in 'attr1', but it has 1"),
        ({**document(), "targ2": {"category": "y", "examples": list("abij")}}, "no word in both 'targ1' and 'targ2', but 2 are"),
    ],
)
def test_a_bad_file_is_refused(found: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=says):
        load(write(tmp_path / "bad.json", found))


def test_other_bad_input(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="No file of word lists"):
        load(tmp_path / "none.json")
    (tmp_path / "text.json").write_bytes(b"\xff")
    with pytest.raises(CorruptFile, match="one json object"):
        load(tmp_path / "text.json")
    with pytest.raises(BadValue, match="once in each"):
        WeatSpec.parse({"templates": ["no place"]})
    (tmp_path / "two").mkdir()
    twice = [str(write(tmp_path / "a.json")), str(write(tmp_path / "two" / "a.json"))]
    with pytest.raises(BadValue, match="a test is called by its file"):
        list(SUITE.samples(WeatSpec.parse({"files": twice})))


def test_a_suite_that_looks_is_bound_first(tmp_path: Path) -> None:
    model = planted(0.0)
    assert isinstance(bound(SUITE, model), Bound)
    spec = WeatSpec.parse({"files": [str(write(tmp_path / "a.json"))]})
    with pytest.raises(Incompatible, match="bind it"):
        run_suite(SUITE, model, spec)


def test_no_word_is_stored(tmp_path: Path) -> None:
    found = document({**{name: list(words) for name, words in WORDS.items()}, "x": ["Thissisa", *WORDS["x"]]})
    spec = WeatSpec.parse({"files": [str(write(tmp_path / "a.json", found))], "views": ["embedding"]})
    model = planted(0.0)
    text = run_suite(bound(SUITE, model), model, spec).to_json()
    assert "Thissisa" not in text


@pytest.mark.skipif(not sources.mirror_folder() or not sources.available("winobias"), reason="winobias is not mirrored")
def test_the_occupations_at_hand() -> None:
    test = occupations(lambda name: sources.path("winobias", name))
    assert [len(one.words) for one in test.sets] == [20, 20, 8, 8]
