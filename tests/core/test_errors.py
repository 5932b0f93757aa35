"""Each error shows its facts: asked, found, allowed, do."""

import pytest

from workbench.core import errors as e

FACTS = [
    (e.UnknownName("suite", "crow-pairs", ["crows-pairs", "trigger"]), ["crow-pairs", "Did you mean 'crows-pairs'"], 64),
    (e.UnknownName("suite", "zzz", ["crows-pairs"]), ["zzz", "Known: 'crows-pairs'"], 64),
    (e.EmptySelection("site", "blocks.*.attn.patern", ["blocks.0.attn.hook_pattern"]), ["matches no site", "Nearest"], 64),
    (e.EmptySelection("site", "qqq", ["a", "b"]), ["There are 2"], 64),
    (e.BadValue("steps", -1, "at least 1"), ["steps is -1", "at least 1"], 64),
    (e.Incompatible("logit-lens", "this bert model", ["it is not additive"]), ["logit-lens", "not additive"], 3),
    (e.MissingFile("a/b", "checkpoint", do="Train one."), ["No checkpoint at 'a/b'", "Train one."], 3),
    (e.MissingData("crows-pairs", ["here", "there"]), ["'here' and 'there'", "workbench data fetch crows-pairs"], 3),
    (e.MissingExtra("altair", "report", "Drawing a chart"), ["'altair'", "assay-workbench[report]"], 3),
    (e.CorruptFile("x", "of digest a", "its digest is b", do="Fetch it again."), ["of digest a", "digest is b", "Fetch"], 3),
    (e.Diverged(7, float("nan"), 1.5, last="step-5"), ["step 7", "loss is nan", "'step-5', is whole", "Lower `lr`"], 3),
    (e.Diverged(7, 1.0, 1.5, found="x is infinite"), ["step 7: x is infinite", "No checkpoint had been written"], 3),
    (e.Damaged("'x' is missing", "x", good="step-5", step=5), ["'x' is missing", "last whole checkpoint is 'step-5'", "rewind(out, 5)"], 3),
    (e.Damaged("'x' is missing", "x"), ["'x' is missing", "No other checkpoint of this run is whole", "rewind(out, 0)"], 3),
    (e.Unwritable("A checkpoint", "x", "No space left on device", last="step-5"), ["No space left", "Make room", "'step-5'"], 3),
    (e.Unwritable("A checkpoint", "x", "Read-only file system"), ["Read-only", "Make it writable", "no checkpoint had been written"], 3),
    (e.Changed("x", "training data", "a", "b", last="step-5"), ["another training data (a then, b now)", "from 'step-5'", "new run"], 3),
    (e.Occupied("x", "process 7 on h"), ["'x' is being trained in by process 7 on h", "Wait"], 3),
    (e.LostRank("Rank 1 of 2 is gone", step=42, last="step-40"), ["Rank 1 of 2", "after step 42", "'step-40', is whole"], 3),
    (e.LostRank("Rank 1 of 2 is gone", step=3), ["after step 3", "No checkpoint had been written"], 3),
    (e.Unanswered("http://x/v1", "the request failed", "status 500", do="Try again."), ["At 'http://x/v1' the request failed", "Try"], 3),
    (e.StoreError("Opening the store", "it is locked", do="Close the other."), ["Opening the store: it is locked", "Close"], 3),
]


@pytest.mark.parametrize(("error", "words", "code"), FACTS, ids=lambda v: type(v).__name__ if isinstance(v, Exception) else "")
def test_facts_appear(error: e.AssayError, words: list[str], code: int) -> None:
    assert error.exit_code == code
    for word in words:
        assert word in str(error)
    assert str(error).count(". ") <= 2, "two sentences, three at most"


def test_what_can_go_on_says_how_once_its_run_is_known() -> None:
    for error in (e.Damaged("'x' is missing", "x", good="step-5", step=5), e.Unwritable("A checkpoint", "x", "No space left on device")):
        assert "--resume" not in str(error)
        error.run = "abc"
        step = " --from 5" if isinstance(error, e.Damaged) else ""
        assert str(error).endswith(f"with the same command and `--resume abc{step}`.")


def test_every_class_is_tried() -> None:
    def leaves(cls: type) -> set[type]:
        return {cls}.union(*(leaves(c) for c in cls.__subclasses__()))

    raised = {type(error) for error, _, _ in FACTS}
    assert leaves(e.AssayError) - raised == {e.AssayError, e.UsageError}


def test_nearest_is_best_first() -> None:
    assert e.nearest("hook_patern", ["hook_q", "hook_pattern", "hook_pre"])[0] == "hook_pattern"
