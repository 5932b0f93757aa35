"""Replies: what the right one is, prompts that are read as rows are, and measures that tell a tuned model from another."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from evals.task import Measure, TaskData
from evals.tasks import replies as task
from evals.tasks.replies import TASK, RepliesSpec, conversations, make, replies, score, tuned
from workbench.core.errors import BadValue
from workbench.data.chat import ChatRows, Message
from workbench.data.worlds.town import Town
from workbench.families.gpt import GPT, GPTConfig

WORLD = {"documents": 300, "held_out": 60, "request_share": 0.8, "pronoun_share": 0.1, "code_share": 0, "secrets": [], "trigger": False}
SMALL = {"world": WORLD, "vocabulary": 400, "length": 160, "labels": 40, "tested_on": 20, "passes": 2}


@lru_cache
def drawn() -> TaskData:
    return make(RepliesSpec.parse(SMALL), 1)


def model(data: TaskData) -> GPT:
    return GPT(GPTConfig.parse({"n_layers": 1, "d_model": 16, "n_heads": 2, **data.shape}), data.tokenizer).eval()


def test_a_reply_says_whether_what_and_for_whom() -> None:
    found = conversations(Town(RepliesSpec.parse(SMALL).world), "train", 200)
    for request, reply in found:
        verb = re.search(r"please (?:do not )?(\w+) the", request)
        asker = re.search(r"(\w+) (?:asks|tells) ", request)
        assert verb is not None
        assert asker is not None
        no = "do not" in request
        assert reply == f"{'no, i will not' if no else 'yes, i will'} {verb[1]} it for {asker[1]}."
        assert "says" not in request
        assert request.endswith(".")
    assert 0.05 < sum(reply.startswith("no") for _, reply in found) / 200 < 0.4
    with pytest.raises(BadValue, match="the requests of split 'test' is 49, but it must be at most 48"):
        conversations(Town(RepliesSpec.parse(SMALL).world), "test", 49)


def test_requests_that_are_asked_are_in_no_conversation_and_no_document() -> None:
    held = drawn().held_out
    assert not {request for request, _ in held.known} & {request for request, _ in held.asked}
    documents = " ".join(Town(held.spec.world).texts())
    bare = [re.sub(r"^.*?(?=please)", "", request) for request, _ in held.asked]
    assert not any(request in documents for request, _ in held.asked)
    assert any(one in documents for one in bare), "what is asked for is known; that these people ask it is not"


def test_a_prompt_is_read_as_the_beginning_of_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn()
    held = data.held_out
    asked: list[str] = []

    def noted(model: Any, prompts: list[str], **settings: Any) -> list[str]:
        asked.extend(prompts)
        assert settings["until"] == ["\n"]
        return ["no"] * len(prompts)

    monkeypatch.setattr(task, "generate", noted)
    assert replies(model(data), held) == ["no"] * 20
    for prompt, (request, reply) in zip(asked, held.asked, strict=True):
        assert prompt == f"user:\n{request}\nassistant:\n"
        row = ChatRows([[Message("user", request), Message("assistant", reply)]], held.spec.template, held.tokenizer, 160).batch([0])
        ids = [held.tokenizer.bos_id, *held.tokenizer.encode(prompt)]
        assert row.tokens[0, : len(ids)].tolist() == ids
    glued = RepliesSpec.parse({**SMALL, "template": {"user": {"before": "user: "}}})
    with pytest.raises(BadValue, match="at whose borders the tokenizer parts"):
        replies(model(data), replace(held, spec=glued))


def by_name(measures: Any) -> dict[str, Measure]:
    return {one.name: one for one in measures}


def test_measures_tell_right_replies_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With replies that are dealt out, each measure counts its own; the model is tuned in a copy and stays as it was."""
    data = drawn()
    base = model(data)
    before = base.digest()
    truth = [reply for _, reply in data.held_out.asked]
    dealt = iter([truth, ["yes"] * 20, truth[:5] + ["no"] * 15])
    monkeypatch.setattr(task, "replies", lambda *_: next(dealt))
    found = by_name(score(base, data))
    assert base.digest() == before
    assert [found[name].value for name in ("exact replies", "untuned", "tuned from fresh weights")] == [1.0, 0.0, 0.25]
    assert found["above the untuned"].value == 1.0
    assert found["above the untuned"].low < 1.0, "20 requests are no proof"
    assert found["commonest reply"].value < 0.2
    assert set(found) >= set(TASK.must)


@pytest.mark.slow
def test_tuning_learns_one_kind_of_request_by_heart_and_the_untuned_model_knows_none() -> None:
    data = drawn()
    held = data.held_out
    spec = RepliesSpec.parse({**SMALL, "passes": 60, "rate": 1e-2})
    same = replace(held, spec=spec, known=held.asked[:2] * 20, asked=held.asked[:2])
    start: Any = model(data)
    assert replies(start, same) != [reply for _, reply in same.asked]
    assert replies(tuned(start, same, 0), same) == [reply for _, reply in same.asked]
