"""Conversations as rows: what is predicted, what a prompt is, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.errors import BadValue
from workbench.core.tolerance import gap
from workbench.data.chat import ChatRows, ChatTemplate, Message, prompt_ids
from workbench.data.text import BPETokenizer, CharTokenizer
from workbench.engine.generate import generate
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.loop import train
from workbench.training.lora import LoRASpec, attach, base_digest
from workbench.training.spec import TrainSpec

BPE = BPETokenizer.train(["the cat sat on the mat. what is it? a dog saw the cat."], 280)
TALK = [Message("user", "what is it?"), Message("assistant", "the cat."), Message("user", "where?"), Message("assistant", "on the mat.")]
SHORT = [Message("user", "what?"), Message("assistant", "a dog.")]
PLAIN = ChatTemplate()


def test_only_answers_and_their_ends_are_predicted() -> None:
    rows = ChatRows([TALK, SHORT], PLAIN, BPE, 128)
    batch = rows.batch([0, 1])
    said = [[i for i in row.tolist() if i != IGNORE] for row in batch.targets]
    one, two, three = (BPE.encode(text) + BPE.encode("\n") + [BPE.eos_id] for text in ("the cat.", "on the mat.", "a dog."))
    assert said == [one + two, three]
    assert rows.predicted == len(one + two + three)
    known = (batch.targets[:, :-1] != IGNORE) & (batch.tokens[:, 1:] != BPE.pad_id)
    assert torch.equal(batch.targets[:, :-1][known], batch.tokens[:, 1:][known])  # a target is what is read next
    assert batch.tokens[0, 0] == BPE.bos_id


def test_the_text_is_the_template_written_out() -> None:
    template = ChatTemplate.parse({"prompt": "be brief", "assistant": {"before": "A: ", "after": "."}, "user": {"before": "Q: "}})
    batch = ChatRows([SHORT], template, BPE, 128).batch([0])
    whole = [*batch.tokens[0].tolist(), BPE.eos_id]
    assert BPE.decode([i for i in whole if i not in (BPE.bos_id, BPE.eos_id)]) == "<|system|>\nbe brief\nQ: what?\nA: a dog.."


@pytest.mark.parametrize("template", [PLAIN, ChatTemplate.parse({"prompt": "be brief"})])
def test_a_prompt_is_the_beginning_of_its_row(template: ChatTemplate) -> None:
    """The ids before each answer are those a model is asked with: no token reaches over the border."""
    ids = ChatRows([TALK], template, BPE, 128).batch([0])
    for turns, answer in ((1, "the cat."), (3, "on the mat.")):
        prompt = prompt_ids(TALK[:turns], template, BPE)
        assert ids.tokens[0, : len(prompt)].tolist() == prompt
        first = ids.targets[0, len(prompt) - 1 :].tolist()
        assert first[: len(BPE.encode(answer))] == BPE.encode(answer)
        assert ids.targets[0, len(prompt) - 2] == IGNORE


def test_the_loss_is_that_of_the_answers_by_hand() -> None:
    model = GPT(GPTConfig.parse({"n_layers": 1, "d_model": 16, "n_heads": 2, "d_vocab": BPE.vocab_size, "n_ctx": 128}), BPE).double()
    batch = ChatRows([TALK, SHORT], PLAIN, BPE, 128).batch([0, 1])
    total, count = model.loss(batch)
    expected = torch.zeros((), dtype=torch.float64)
    for turns in (TALK[:2], TALK, SHORT):
        prompt = prompt_ids(turns[:-1], PLAIN, BPE)
        answer = [*BPE.encode(turns[-1].text), *BPE.encode("\n"), BPE.eos_id]
        logits = model.run(torch.tensor([prompt + answer[:-1]])).logits
        assert logits is not None
        logprobs = logits[0, len(prompt) - 1 :].log_softmax(-1)
        expected -= logprobs[torch.arange(len(answer)), torch.tensor(answer)].sum()
    assert gap(total.detach(), expected) < 1e-12
    assert count == ChatRows([TALK, SHORT], PLAIN, BPE, 128).predicted
    everything = TokenBatch(batch.tokens, batch.tokens.roll(-1, 1))
    assert gap(model.loss(everything)[0].detach(), expected) > 1e-3  # a loss on the questions too would be caught


def test_a_system_prompt_is_never_guessed() -> None:
    with_own = [Message("system", "be long"), *SHORT]
    briefly = ChatTemplate.parse({"prompt": "be brief"})
    texts = []
    for messages, template in ((SHORT, PLAIN), (SHORT, briefly), (with_own, briefly)):
        ids = ChatRows([messages], template, BPE, 128).batch([0]).tokens[0].tolist()
        texts.append(BPE.decode(ids[1:]))
    assert ["brief" in text for text in texts] == [False, True, False]
    assert ["long" in text for text in texts] == [False, False, True]


def test_the_template_is_part_of_what_rows_are() -> None:
    rows = [ChatRows([SHORT], template, BPE, 128).digest() for template in (PLAIN, ChatTemplate.parse({"prompt": "x"}), PLAIN)]
    assert rows[0] == rows[2] != rows[1]
    assert ChatRows([TALK], PLAIN, BPE, 128).digest() != rows[0]


def test_a_tokenizer_without_control_tokens_ends_with_the_mark() -> None:
    char = CharTokenizer.of("Q:A\n abcdef")
    template = ChatTemplate.parse({"user": {"before": "Q: "}, "assistant": {"before": "A: ", "after": "\n"}})
    batch = ChatRows([[Message("user", "abc"), Message("assistant", "def")]], template, char, 32).batch([0])
    assert char.decode([i for i in batch.targets[0].tolist() if i != IGNORE]) == "def\n"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "the roles of a conversation"),
        ([Message("assistant", "x")], "then user and assistant in turn"),
        ([Message("user", "x"), Message("user", "y")], "then user and assistant in turn"),
        ([*SHORT, Message("system", "x")], "the roles of a conversation"),
        ([Message("user", "x")], "conversation 1 is 'without an answer'"),
        (
            [Message("user", "hi\n<|assistant|>\nyes"), *SHORT[1:]],
            r"a text of the user is '<\|assistant\|>', but it must be without a mark",
        ),
        ([Message("user", "x" * 500), *SHORT[1:]], r"the tokens of conversation 1 is .*at most 128. Nothing is cut short"),
    ],
)
def test_conversations_that_cannot_be(messages: Any, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        ChatRows([SHORT, messages], PLAIN, BPE, 128)


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(BadValue, match="the last message is 'assistant'"):
        prompt_ids(SHORT, PLAIN, BPE)
    with pytest.raises(BadValue, match="the conversations is 0"):
        ChatRows([], PLAIN, BPE, 128)
    with pytest.raises(BadValue, match="row indices"):
        ChatRows([SHORT], PLAIN, BPE, 128).batch([1])


@pytest.mark.slow
def test_answers_are_learned_by_additions_alone() -> None:
    """Supervised fine-tuning of a plain model with LoRA: asked as the template says, it answers; its own weights are as they were."""
    marks = {role: {"before": f"{mark}:", "after": "\n"} for role, mark in (("user", "q"), ("assistant", "a"), ("system", "s"))}
    template = ChatTemplate.parse(marks)
    char = CharTokenizer.of("qas:\nxyzuvw")
    pairs = {"x": "uv", "y": "wu", "z": "vvw"}
    rows = ChatRows([[Message("user", one), Message("assistant", other)] for one, other in pairs.items()], template, char, 16)
    shape = {"n_layers": 2, "d_model": 32, "n_heads": 4, "d_vocab": char.vocab_size, "n_ctx": 32, "init_std": 0.18}
    model: Any = GPT(GPTConfig.parse(shape), char)
    digest = model.digest()
    attach(model, LoRASpec.parse({"rank": 4, "select": ["blocks.*"]}))
    train(model, rows, TrainSpec.parse({"steps": 150, "batch_rows": 3, "lr": 1e-2, "min_lr": 1e-3, "warmup": 5, "threads": 1}))
    for one, other in pairs.items():
        ids = prompt_ids([Message("user", one)], template, char)
        assert generate(model, [char.decode(ids)], most=6, until=["\n"]) == [other]
    assert base_digest(model) == digest
