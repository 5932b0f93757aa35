"""What of Inspect's model provider is ours: conversations become requests, and all that waits is written at once."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from tests.engine.models import lettered, wordy
from workbench.adapters import inspect_ai as adapter
from workbench.adapters.inspect_ai import Asked, api_class
from workbench.core.errors import AssayError, BadValue, CorruptFile, MissingExtra, MissingFile
from workbench.core.measure import Generate
from workbench.data.chat import ChatTemplate, prompt_ids
from workbench.data.chat import Message as Turn
from workbench.engine.generate import generate
from workbench.lab.exporting import export
from workbench.lab.importing.run import import_files
from workbench.lab.inspect_provider import prompted, provider, template_of
from workbench.store.runs import Store
from workbench.training import checkpoint


class Settings:
    """A generation config, as Inspect's dumps itself."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def model_dump(self, exclude_none: bool) -> dict[str, Any]:
        return {name: value for name, value in self.values.items() if value is not None}


class Base:
    def __init__(self, model_name: str, **_: Any) -> None:
        self.model_name = model_name


class Alone(Asked, Base):
    """The provider on a stand-in for Inspect's class, which gives texts as they are and counts its batches."""

    def __init__(self, model: Any, template: ChatTemplate | None = None) -> None:
        super().__init__("assay/m", model, prompted(template))
        self.batches: list[int] = []

    def _write(self, batch: Any) -> None:
        self.batches.append(len(batch))
        super()._write(batch)

    def _output(self, text: str) -> Any:
        return text


def said(text: Any, role: str = "user") -> Any:
    return SimpleNamespace(role=role, content=text)


def ask(api: Alone, prompts: list[Any], **settings: Any) -> list[Any]:
    """What each prompt came to (a text or an error), all asked at once."""
    out: list[Any] = [None] * len(prompts)

    async def one(place: int) -> None:
        try:
            out[place] = await api.generate([said(prompts[place])], [], "auto", Settings(**settings))
        except AssayError as error:
            out[place] = error

    async def all_of_them() -> None:
        async with anyio.create_task_group() as group:
            for place in range(len(prompts)):
                group.start_soon(one, place)

    anyio.run(all_of_them)
    return out


def test_all_that_waits_is_written_at_once_and_is_what_each_would_be_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "AT_ONCE", 5)
    model = lettered(n_ctx=32)
    prompts = ["abc"[: 1 + k % 3] + "defgh"[k % 5] for k in range(13)]
    api = Alone(model)
    assert ask(api, prompts, max_tokens=6, stop_seqs=["q"]) == generate(model, prompts, most=6, until=["q"])
    assert sum(api.batches) == 13
    assert max(api.batches) == 5


def test_repeats_of_a_prompt_are_drawn_anew_and_again_the_same() -> None:
    model = lettered(n_ctx=32)
    texts = ask(Alone(model), ["ab"] * 6, max_tokens=12, temperature=2.0, seed=3)
    assert len(set(texts)) > 1
    assert sorted(ask(Alone(model), ["ab"] * 6, max_tokens=12, temperature=2.0, seed=3)) == sorted(texts)
    assert sorted(ask(Alone(model), ["ab"] * 6, max_tokens=12, temperature=2.0, seed=4)) != sorted(texts)


def test_one_prompt_that_does_not_fit_leaves_the_others() -> None:
    found = ask(Alone(lettered(n_ctx=16)), ["ab", "a" * 40, "cd"], max_tokens=4)
    assert isinstance(found[1], BadValue)
    assert all(isinstance(one, str) for one in (found[0], found[2]))


@pytest.mark.parametrize(
    ("settings", "said_"), [({"top_p": 0.9}, "'top_p'"), ({"num_choices": 3}, "'num_choices'"), ({"logprobs": True}, "'logprobs'")]
)
def test_a_setting_that_is_not_heeded_is_refused(settings: dict[str, Any], said_: str) -> None:
    (found,) = ask(Alone(lettered(n_ctx=32)), ["ab"], **settings)
    assert isinstance(found, BadValue)
    assert said_ in str(found)


def test_settings_that_change_nothing_pass() -> None:
    model = lettered(n_ctx=32)
    idle = ask(Alone(model), ["ab"], max_tokens=3, top_p=1.0, num_choices=1, max_retries=3, timeout=9, top_k=None)
    assert idle == generate(model, ["ab"], most=3)


def test_tools_and_pictures_are_refused() -> None:
    api = Alone(lettered())

    async def with_tools() -> Any:
        return await api.generate([said("ab")], [SimpleNamespace(name="bash")], "auto", Settings())

    with pytest.raises(BadValue, match="calls nothing"):
        anyio.run(with_tools)
    (found,) = ask(api, [[SimpleNamespace(type="text", text="ab"), SimpleNamespace(type="image")]])
    assert "'image'" in str(found)
    assert ask(Alone(lettered(n_ctx=32)), [[SimpleNamespace(type="text", text="ab")]], max_tokens=2) == generate(
        lettered(n_ctx=32), ["ab"], most=2
    )


def test_a_conversation_is_written_by_the_template_and_by_nothing_else() -> None:
    template, model = ChatTemplate(prompt="the mat"), wordy()
    request = prompted(template)([("user", "the cat"), ("assistant", "sat"), ("user", "here")], 5, ("x",))
    turns = [Turn("user", "the cat"), Turn("assistant", "sat"), Turn("user", "here")]
    assert request.chat is not None
    assert model.tokenizer is not None
    assert request.chat.asking(request.prompt, model.tokenizer) == prompt_ids(turns, template, model.tokenizer)
    assert (request.most, request.until) == (5, ("x",))
    assert prompted(None)([("user", "hi")], 5, ()) == Generate("hi", 5)
    for messages in ([("system", "s"), ("user", "u")], [], [("user", "a"), ("user", "b")]):
        with pytest.raises(BadValue, match="-M template=FILE"):
            prompted(None)(messages, 5, ())
    with pytest.raises(BadValue, match="'tool'"):
        prompted(template)([("user", "a"), ("tool", "b")], 5, ())


def test_a_template_is_read_or_refused_by_name(tmp_path: Any) -> None:
    place = tmp_path / "chat.yaml"
    place.write_text("prompt: Be kind.\nuser: {before: 'U: '}\n")
    assert template_of(str(place)).user.before == "U: "
    place.write_text("- a\n")
    with pytest.raises(CorruptFile, match="it holds a list"):
        template_of(str(place))
    place.write_text("usr: {}\n")
    with pytest.raises(AssayError, match="'usr'"):
        template_of(str(place))
    with pytest.raises(MissingFile):
        template_of(str(tmp_path / "none.yaml"))


def test_without_inspect_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    api_class.cache_clear()
    monkeypatch.setitem(sys.modules, "inspect_ai.model", None)
    with pytest.raises(MissingExtra, match=r"assay-workbench\[inspect\]"):
        provider()


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_inspect_runs_a_task_on_our_engine_and_its_log_comes_back(tmp_path: Any) -> None:
    inspect = pytest.importorskip(
        "inspect_ai", reason="Inspect wants other versions than the other extras: it has an environment of its own"
    )
    Sample, match, solved = inspect.dataset.Sample, inspect.scorer.match, inspect.solver.generate
    model = lettered(n_ctx=64)
    checkpoint.write(str(tmp_path / "model"), model)
    prompts = ["abcdefgh"[k % 8] + "ijk"[k % 3] for k in range(12)]
    texts = generate(model, prompts, most=4)
    rows = [
        Sample(input=prompt, target=text[:2] if k % 2 else "xx", id=k) for k, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]
    task = inspect.Task(dataset=rows, solver=solved(), scorer=match("begin"), name="letters")
    (log,) = inspect.eval(task, model=f"assay/{tmp_path}/model", max_tokens=4, log_dir=str(tmp_path / "logs"), display="none")
    assert log.status == "success"
    assert [sample.output.completion for sample in log.samples] == texts
    with Store.open(tmp_path / "home") as store:
        made = import_files([log.location], store=store)
        assert [one["values"] for one in store.sink(made.run, "letters").read()] == [{"match": bool(k % 2)} for k in range(12)]
        (place,) = export(made.run, "inspect", str(tmp_path / "out"), store=store).places
    again = inspect.log.read_eval_log(str(place))
    assert [sample.scores["match"].value for sample in again.samples] == [bool(k % 2) for k in range(12)]
