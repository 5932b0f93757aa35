"""Inputs from words: a token is the token that was meant, or there is an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from evals.tasks import TASKS
from probes import INSTRUMENTS
from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue, UsageError
from workbench.core.protocol import Inputs
from workbench.data.treebank import Sentence
from workbench.data.worlds.town import Town
from workbench.data.worlds.town_words import LEANS
from workbench.families import FAMILIES
from workbench.families.gpt import GPT
from workbench.lab.inputs import (
    InputsSpec,
    default_inputs,
    digest_of_inputs,
    encoded,
    from_texts,
    make_inputs,
    occupation_spans,
    pronoun_items,
    tokens_of,
    town_labels,
    town_leans,
    town_pronouns,
    treebank_labels,
    treebank_trees,
    usual_count,
)
from workbench.lab.refs import load
from workbench.store.runs import Store


@pytest.fixture
def model(store: Store, trained: str) -> Any:
    return load(trained, store=store)


def test_targets_are_the_ids_that_follow(model: Any) -> None:
    texts = ["the baker said", "the judge met the pilot because"]
    made = from_texts(model, texts, [" she"], [" he", " his"])
    tokenizer = model.tokenizer
    assert made.batch == texts
    assert made.targets is not None
    assert made.foils is not None
    assert [tokenizer.decode([int(i)]) for i in made.targets] == [" she", " she"]
    assert [tokenizer.decode([int(i)]) for i in made.foils] == [" he", " his"]


@pytest.mark.parametrize("answer", ["", "she", " she said"])
def test_an_answer_that_is_not_one_token_is_refused(model: Any, answer: str) -> None:
    with pytest.raises(BadValue, match="must be one token after its text"):
        from_texts(model, ["the baker"], [answer])


def test_a_corrupt_text_is_the_twin_of_a_text(model: Any) -> None:
    texts: dict[str, Any] = {"texts": ["the baker said"], "targets": [" she"]}
    patching, saliency = INSTRUMENTS.load("activation-patching"), INSTRUMENTS.load("saliency")
    plain, given = InputsSpec.of(texts), InputsSpec.of({**texts, "corrupt": ["the judge said"]})
    assert "corrupt" not in plain.model_dump(mode="json")  # what was stored before keeps its bytes
    made = make_inputs(patching, model, given, patching.spec())
    assert (made.batch, made.reference) == (["the baker said"], ["the judge said"])
    assert make_inputs(patching, model, plain, patching.spec()).reference is None
    with pytest.raises(UsageError, match="'saliency' compares no clean text with a corrupt one"):
        make_inputs(saliency, model, given, saliency.spec())
    with pytest.raises(BadValue, match="one corrupt text for each of the 1 texts, not 2"):
        InputsSpec.of({**texts, "corrupt": ["a", "b"]})


def test_a_model_without_words_cannot_be_asked_in_words() -> None:
    with pytest.raises(UsageError, match="no tokenizer, so it cannot be asked in words"):
        from_texts(GPT.tiny(seed=0)[0], ["x"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "either texts or a world"),
        ({"texts": ["a"], "world": {}}, "either texts or a world"),
        ({"texts": ["a", "b", "c"], "targets": ["x", "y"]}, "one of targets for all texts or one for each of the 3"),
        ({"world": {}, "targets": ["x"]}, "which has its own"),
        ({"world": {"dose": 3}}, r"world\.dose is 3"),
    ],
)
def test_specs_that_cannot_be_meant_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        InputsSpec.parse(fields)


def test_each_sentence_has_a_skeleton_of_its_own_and_a_leaning_occupation() -> None:
    items = pronoun_items(Town(), count=30, least_lean=0.5)
    assert len(items) == len({item.skeleton for item in items}) == 30
    assert min(abs(item.lean) for item in items) >= 0.5
    assert {item.occupation for item in items} == {name for name, lean in LEANS.items() if abs(lean) >= 0.5}
    with pytest.raises(BadValue, match="least_lean"):
        pronoun_items(Town(), count=2, least_lean=1.5)


def test_places_of_words_are_the_tokens_that_spell_them(model: Any) -> None:
    items = pronoun_items(Town(), count=24)
    made = town_pronouns(model, items)
    tokenizer = model.tokenizer
    for row, (item, (start, stop)) in enumerate(zip(items, occupation_spans(model, items), strict=True)):
        ids = made.batch[row].tolist()
        assert ids[0] == tokenizer.bos_id
        assert tokenizer.decode(ids[1 : int(made.lengths[row])]) == item.text_before  # type: ignore[index]  # lengths are given
        assert tokenizer.decode(ids[start:stop]).strip() == item.occupation
        marked = tokenizer.decode([i for i, is_content in zip(ids, made.labels[row].tolist(), strict=True) if is_content])
        assert marked.replace(" ", "") == "".join(item.text_before[a:b] for a, b in item.content)
    without = town_pronouns(model, items, bos=False)
    assert torch.equal(without.batch, made.batch[:, 1:])
    assert occupation_spans(model, items, bos=False) == tuple((a - 1, b - 1) for a, b in occupation_spans(model, items))


def test_labels_stand_at_the_last_token_of_each_word(model: Any) -> None:
    made = town_labels(model, Town(), count=20)
    labels = made.labels["class"]
    for row, item in enumerate(Town().label_items("test", 20)):
        found = [(word, kind) for word, kind in zip(labels.types[row], labels.values[row], strict=True) if word]
        assert found == list(zip(item.words, item.classes, strict=True))
        last = [place for place, word in enumerate(labels.types[row]) if word]
        ids = made.batch[row].tolist()
        assert model.tokenizer.decode(ids[1 : last[2] + 1]) == item.text[: item.spans[2][1]]
    with pytest.raises(BadValue, match="covered by at least one token"):
        tokens_of([(0, 3)], (5, 7))


def test_sentences_are_labelled_by_the_way_they_lean_and_contrasted_by_their_pronoun(model: Any) -> None:
    items = pronoun_items(Town(), count=24)
    made, decode = town_leans(model, items, contrasts=True), model.tokenizer.decode
    assert isinstance(made.reference, Inputs)
    assert made.labels == {"lean": ["she" if item.lean > 0 else "he" for item in items]}
    for row, item in enumerate(items):
        for side, said in ((made, item.she), (made.reference, item.he)):
            assert side.lengths is not None
            assert decode(side.batch[row, 1 : int(side.lengths[row])].tolist()) == item.text_before + said
    spec = InputsSpec.parse({"world": {}, "count": 24})
    whole, contrast = (INSTRUMENTS.load(name) for name in ("sequence-probe", "contrast-direction"))
    assert make_inputs(whole, model, spec, whole.spec()).reference.digest() != model.digest()
    assert torch.equal(make_inputs(contrast, model, spec, contrast.spec()).batch, made.batch)
    with pytest.raises(UsageError, match="one label a text, and a treebank labels words"):
        make_inputs(whole, model, InputsSpec.parse({"labels": "ud-english-ewt"}), whole.spec())


def test_an_instrument_is_given_what_it_takes_and_no_more(model: Any) -> None:
    spec = InputsSpec.parse({"world": {}, "count": 40})
    tool = INSTRUMENTS.load("integrated-gradients")
    made = {b: make_inputs(tool, model, spec, tool.spec.parse({"baseline": b})) for b in ("zero", "template-mean")}
    assert made["zero"].groups is None
    assert made["zero"].foils is None
    assert made["template-mean"].groups is not None
    assert make_inputs(tool, model, spec, tool.spec.parse({"quantity": "logit-difference"})).foils is not None
    probing = INSTRUMENTS.load("probing")
    assert make_inputs(probing, model, spec, probing.spec()).reference is not None
    assert make_inputs(probing, model, spec.override({"untrained": False}), probing.spec()).reference is None
    scores = INSTRUMENTS.load("head-scores")
    assert make_inputs(scores, model, spec, scores.spec()).batch is None


def test_the_digest_of_inputs_is_that_of_their_content() -> None:
    a, b = torch.tensor([[1, 2]]), torch.tensor([[1, 3]])
    assert digest_of_inputs(Inputs(a)) == digest_of_inputs(Inputs(a.clone()))
    assert len({digest_of_inputs(i) for i in (Inputs(a), Inputs(b), Inputs(a.int()), Inputs(a.T), Inputs(a, targets=a[0]))}) == 5


def test_words_of_a_treebank_are_labelled_at_their_last_token(model: Any) -> None:
    sentence = Sentence("the Baker said", ("the", "Baker", "said"), ((0, 3), (4, 9), (10, 14)), ("DET", "NOUN", "VERB"))
    made = treebank_labels(model, [sentence, Sentence("so", ("so",), ((0, 2),), ("ADV",))])
    ids, where = model.tokenizer.offsets(sentence.text)
    assert made.batch[0, : len(ids) + 1].tolist() == [model.tokenizer.bos_id, *ids]
    labels = made.labels["part of speech"]
    assert [tag for tag in labels.values[0] if tag] == ["DET", "NOUN", "VERB"]
    for word, end in (("the", 3), ("baker", 9), ("said", 14)):
        last = max(place for place, (start, _) in enumerate(where) if start < end)
        assert labels.types[0][last + 1] == word  # after the BOS
    assert [tag for tag in labels.values[1] if tag] == ["ADV"]


def test_words_of_a_treebank_hang_on_their_heads(model: Any) -> None:
    spans, tags = ((0, 3), (4, 9), (10, 14), (14, 15)), ("DET", "NOUN", "VERB", "PUNCT")
    whole = Sentence("the Baker said.", ("the", "Baker", "said", "."), spans, tags, (1, 2, -1, 2), ("det", "nsubj", "root", "punct"))
    lost = Sentence("so it", ("so", "zz", "it"), ((0, 2), (2, 2), (3, 5)), ("ADV", "X", "PRON"), (2, 0, -1), ("a", "b", "root"))
    made = treebank_trees(model, [whole, lost])
    _, where = model.tokenizer.offsets(whole.text)
    last = [max(place for place, (start, _) in enumerate(where) if start < end) + 1 for _, end in spans[:3]]  # after the BOS
    assert {place: int(head) for place, head in enumerate(made.labels[0]) if head != IGNORE} == {
        last[0]: last[1], last[1]: last[2], last[2]: last[2],
    }  # fmt: skip
    assert bool((made.labels[1] == IGNORE).all()), "a word of it was not kept"
    related = treebank_labels(model, [whole])
    assert [word for word in related.labels["dependency relation"].values[0] if word] == ["det", "nsubj", "root", "punct"]


def test_a_template_of_control_tokens_goes_around_a_text() -> None:
    class Framing:
        bos_id, pad_id, vocab_size = None, 0, 9

        def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
            return [5] * len(text), [(i, i + 1) for i in range(len(text))]

        def framed(self, ids: list[int], second: Any = None) -> tuple[list[int], list[int]]:
            return [1, *ids, 2], [0] * (len(ids) + 2)

    class Reads:
        family, tokenizer = "bert", Framing()

    model: Any = Reads()
    ids, lengths, spans = encoded(model, ["ab", "a"])
    assert ids.tolist() == [[1, 5, 5, 2], [1, 5, 2, 0]]
    assert lengths.tolist() == [4, 3]
    assert spans[0] == [(0, 0), (0, 1), (1, 2), (0, 0)]
    assert encoded(model, ["ab"], bos=False)[0].tolist() == [[5, 5]]


def test_labels_are_for_instruments_that_ask_for_them(model: Any) -> None:
    tool = INSTRUMENTS.load("saliency")
    with pytest.raises(UsageError, match="asks for no labels"):
        make_inputs(tool, model, InputsSpec.parse({"labels": "ud-english-ewt"}), tool.spec())
    with pytest.raises(UsageError, match="either texts or a world or a task or labels"):
        InputsSpec.parse({"labels": "ud-english-ewt", "texts": ["a"]})


@pytest.mark.parametrize(
    ("family", "task", "stack"),
    [("clip", "shapes", "image"), ("dalle", "painting", ""), ("imagen", "denoising", "text"), ("vit", "digits", "")],
)
def test_rows_of_a_task_can_be_asked_about(family: str, task: str, stack: str) -> None:
    """The inputs a model is given by default are ones that its instruments run on, and the target is what the row holds."""
    if task not in TASKS:
        pytest.skip(f"there is no task '{task}'")
    one = TASKS.load(task)
    data = {} if task == "digits" else {"rows": 12, "held_out": 12}
    shape = one.make(one.spec.parse(data), 3).shape
    small = {"n_layers": 1, "d_model": 16, "n_heads": 2, "patch": 2}
    if family == "clip":
        small = {"patch": 4} | {
            f"{word}_{tower}": small[word] for word in ("n_layers", "d_model", "n_heads") for tower in ("text", "image")
        }
    made: Any = FAMILIES.load(family)
    model = made(made.config_type.parse({**shape, **small})).eval()
    tool = INSTRUMENTS.load("saliency")
    chosen = tool.spec.parse({"stack": stack})
    inputs = make_inputs(tool, model, InputsSpec.parse({"task": task, "data": data, "count": 3}), chosen)
    values: Any = tool(model, inputs, chosen).values
    assert values.sizes["batch"] == 3
    if family == "dalle":
        codes = model.coder.encode(inputs.batch.pixels)[:, -1]
        assert values.target_id.values.tolist() == (codes + model.config.d_vocab_text).tolist()
        assert (values.position.values == values.sizes["pos"] - 1).all()


def test_what_a_model_writes_about_rows_of_a_task_is_its_own() -> None:
    """A source and what the decoder begins from, without the row's answer: all that is written is explained, not its first token alone."""
    one = TASKS.load("copying")
    data = {"rows": 12, "held_out": 12}
    small = {"n_layers_encoder": 1, "n_layers_decoder": 1, "d_model": 16, "n_heads": 2}
    made: Any = FAMILIES.load("seq2seq")
    model = made(made.config_type.parse({**one.make(one.spec.parse(data), 3).shape, **small})).eval()
    tool = INSTRUMENTS.load("generation-attribution")
    chosen = tool.spec.parse({"most": 4})
    inputs = make_inputs(tool, model, InputsSpec.parse({"task": "copying", "data": data, "count": 3}), chosen)
    assert inputs.targets is None
    assert tool(model, inputs, chosen).values.sizes["generated"] == 4


def test_an_instrument_of_weights_needs_no_inputs_and_one_that_fits_takes_many(store: Store, trained: str, model: Any) -> None:
    scores, lens = INSTRUMENTS.load("composition-scores"), INSTRUMENTS.load("tuned-lens")
    given = default_inputs(scores, "family:vit", store)  # no world, no task
    assert given.weights
    assert make_inputs(scores, model, given, scores.spec()).batch is None
    assert make_inputs(scores, model, InputsSpec.of("the baker said"), scores.spec()).batch is None
    with pytest.raises(UsageError, match="'tuned-lens' reads more than weights"):
        make_inputs(lens, model, given, lens.spec())
    assert default_inputs(lens, trained, store).count == usual_count(lens) == 400
    assert "weights" not in InputsSpec.of("x").model_dump(mode="json")  # older specs keep their bytes


def test_texts_with_a_class_each_are_asked_by_instruments_of_labels(model: Any) -> None:
    """A direction of a concept, and what pushing along it does, as the command asks for them."""
    pairs = [(f"the {job} met {name} because", side) for job, side in (("baker", "a"), ("judge", "b")) for name in ("sam", "the pilot")]
    texts, classes = [text for text, _ in pairs], [side for _, side in pairs]
    spec = InputsSpec.parse({"texts": texts, "classes": classes, "targets": [" she"], "foils": [" he"]})
    steering = INSTRUMENTS.load("steering")
    chosen = steering.spec.parse({"quantity": "logit-difference", "randoms": 2, "doses": [1.0], "resamples": 400})
    found = steering(model, make_inputs(steering, model, spec, chosen), chosen)
    assert set(found.values["who"].values) == {"direction", "random"}
    with pytest.raises(UsageError, match="asks for no labels"):
        make_inputs(INSTRUMENTS.load("saliency"), model, spec, INSTRUMENTS.load("saliency").spec())
    with pytest.raises(UsageError, match="one of classes for each of the 4 texts, not 1"):
        InputsSpec.parse({"texts": texts, "classes": ["a"]})


def test_other_models_are_loaded_where_an_instrument_compares_some(store: Store, trained: str, model: Any) -> None:
    tool, texts = INSTRUMENTS.load("similarity"), [f"the {job} met the pilot" for job in ("baker", "judge", "nurse", "clerk")]
    one = InputsSpec.parse({"texts": texts, "model": trained})
    assert one.model == (trained,)
    assert InputsSpec.parse({"texts": texts, "model": [trained, "family:gpt"]}).model == (trained, "family:gpt")
    made = make_inputs(tool, model, one, tool.spec(), store)
    assert list(made.reference) == [trained, "untrained"]
    assert made.reference[trained].digest() == model.digest()
    assert made.reference["untrained"].digest() != model.digest()
    found = tool(model, made, tool.spec.parse({"draws": 1}))
    assert float(found.values["relative"].sel(other=trained).max()) == 0.0
    assert (found.values["relative"].sel(other="untrained") > 0.3).all()
    bare = make_inputs(tool, model, InputsSpec.parse({"texts": texts, "untrained": False}), tool.spec(), store)
    assert bare.reference is None
    with pytest.raises(UsageError, match="'saliency' compares no models"):
        make_inputs(INSTRUMENTS.load("saliency"), model, one, INSTRUMENTS.load("saliency").spec(), store)
    assert default_inputs(tool, trained, store).count == 96
    assert "model" not in InputsSpec.of("x").model_dump(mode="json")  # older specs keep their bytes
