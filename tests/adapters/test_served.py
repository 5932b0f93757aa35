"""A model of ours behind two published servers: what comes back is what the model itself says, run here.

`transformers serve` generates, in both forms, and takes ``echo`` and ``logprobs`` without a word and without an answer. FastChat echoes a
text with its tokens' log-probabilities. Both open the folder that an export writes, with its tokenizer, on 127.0.0.1.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evals import SUITES
from evals.runner import run_suite
from tests.evals.test_crows_pairs import PAIRS, write
from workbench.core.errors import AssayError, Incompatible, Unanswered
from workbench.core.measure import Loglikelihood
from workbench.data.text import BPETokenizer, PackedRows
from workbench.data.worlds.town import Town, TownSpec
from workbench.engine.generate import generate
from workbench.engine.score import loglikelihoods
from workbench.engine.tokens import tokenizer_of
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab.exchange import export_folder
from workbench.lab.refs import load
from workbench.lab.run import evaluate
from workbench.training import checkpoint

for package in ("openai", "transformers", "fastapi", "uvicorn"):
    pytest.importorskip(package)

PER_TOKEN = 1e-5
"""Nats a scored token in float32, by the table of tolerances; the largest gap seen is 1.9e-6."""
LONGEST = 120.0
"""Seconds a server may take to come up on a busy machine; it takes about ten."""
TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
TOWN = {"seed": 3, "dose": 0.8}
PROMPTS = ("the nurse", "the plumber met", "sam said that", "at the market the")
ENDS = ("the nurse met sam at the market.", "the cat sat. the cat sat on")


@dataclass(frozen=True)
class Shared:
    """The model as it runs here, and the folder that the servers open."""

    model: GPT
    folder: Path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """A decoder trained for a moment, so that its guesses stand apart and its texts end."""
    place = tmp_path_factory.mktemp("served")
    texts = [document.text for document in Town(TownSpec.parse(TOWN)).documents(0, 400)]
    tokenizer = BPETokenizer.train(texts, 400)
    config = GPTConfig.parse({
        "n_layers": 2, "d_model": 32, "n_heads": 4, "d_vocab": tokenizer.vocab_size, "n_ctx": 128, "positions": "learned", "norm": "layer",
        "act": "gelu_tanh", "bias": True, "init_std": 0.15,
    })  # fmt: skip
    model = GPT(config, tokenizer, seed=0)
    rows = PackedRows(texts, tokenizer, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(80):
        loss, count = model.loss(rows.batch([(8 * step + k) % len(rows) for k in range(8)]))
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
    checkpoint.write(place / "ours", model.eval())
    export_folder(str(place / "ours"), str(place / "theirs"))
    (place / "theirs" / "chat_template.jinja").write_text(TEMPLATE)
    return Shared(model, place / "theirs")


# --- servers ------------------------------------------------------------------------------------------------


def free_ports(number: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server program, which is ended by its process id."""
    home = log.parent / f"{log.stem}-home"
    home.mkdir()
    told = {"HOME": str(home), "LOGDIR": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with log.open("wb") as out:
        # A path of its own: nothing is written where the tests are run.
        one = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=home, env={"PATH": os.environ["PATH"], **told}
        )
        try:
            yield one
        finally:
            one.terminate()
            try:
                one.wait(15)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()


def wait_for(url: str, words: str, programs: Sequence[subprocess.Popen[bytes]], log: Path) -> None:
    """Until what ``url`` answers holds ``words``; the log where a program ended or the time is over."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until and all(one.poll() is None for one in programs):
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                if words in reply.read().decode():
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    pytest.fail(f"no answer at {url}:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def generating(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of `transformers serve`."""
    log, (port,) = tmp_path_factory.mktemp("transformers") / "log", free_ports(1)
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(shared.folder), "--host", "127.0.0.1", "--port", str(port)]
    with running([*command, "--device", "cpu"], log) as program:
        wait_for(f"http://127.0.0.1:{port}/health", "ok", [program], log)
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def echoing(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of FastChat: a controller, a worker that holds the model, and the server of the schema."""
    pytest.importorskip("fastchat")
    place = tmp_path_factory.mktemp("fastchat")
    parts = dict(zip(("controller", "model_worker", "openai_api_server"), free_ports(3), strict=True))
    url = {name: f"http://127.0.0.1:{port}" for name, port in parts.items()}
    model = ["--model-path", str(shared.folder), "--model-names", "ours", "--device", "cpu", "--worker-address", url["model_worker"]]
    with ExitStack() as programs:
        started: list[subprocess.Popen[bytes]] = []
        for name, port in parts.items():
            command = [sys.executable, "-m", f"fastchat.serve.{name}", "--host", "127.0.0.1", "--port", str(port)]
            command += ["--controller-address", url["controller"]] if name != "controller" else []
            command += model if name == "model_worker" else []
            started.append(programs.enter_context(running(command, place / name)))
            if name == "controller":
                wait_for(f"{url[name]}/test_connection", "success", started, place / name)
        wait_for(f"{url['openai_api_server']}/v1/models", "ours", started, place / "model_worker")
        yield f"{url['openai_api_server']}/v1"


# --- what is generated --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "chat"])
def test_greedy_texts_are_the_models_own(shared: Shared, generating: str, form: str) -> None:
    served: Any = load(f"endpoint:{shared.folder}@{generating}#form={form},retries=0")
    for until in ((), (".",)):
        expected = generate(shared.model, PROMPTS + ENDS, most=24, until=until)
        assert generate(served, PROMPTS + ENDS, most=24, until=until) == expected
    lengths = [len(tokenizer_of(shared.model).encode(text)) for text in generate(shared.model, PROMPTS + ENDS, most=24)]
    assert min(lengths) < 24 <= max(lengths)  # some end by themselves, some are cut


@pytest.mark.slow
def test_a_server_without_log_probabilities_is_not_asked_for_them(shared: Shared, generating: str) -> None:
    plain: Any = load(f"endpoint:{shared.folder}@{generating}#form=text,retries=0")
    with pytest.raises(Incompatible, match=r"the model does not offer logprobs \(logprobs: .*form=text,logprobs=true; many give none"):
        run_suite(SUITES.load("perplexity"), plain)
    said: Any = load(f"endpoint:{shared.folder}@{generating}#form=text,logprobs=true,retries=3")
    with pytest.raises(Unanswered, match=r"no log-probabilities of a text came: the server answered without them\. Leave out logprobs"):
        list(loglikelihoods(said, [Loglikelihood("the nurse", (" met",))]))


@pytest.mark.slow
def test_a_model_that_the_server_does_not_hold_is_refused(generating: str) -> None:
    other: Any = load(f"endpoint:other@{generating}#form=text,retries=0")
    with pytest.raises(Unanswered, match="the request was refused: status 400: .*pinned to"):
        generate(other, ["x"])


# --- what is scored -----------------------------------------------------------------------------------------


@pytest.mark.full
def test_log_probabilities_are_the_models_own(shared: Shared, echoing: str) -> None:
    served: Any = load(f"endpoint:ours@{echoing}#form=text,logprobs=true,retries=0")
    requests = [Loglikelihood(prompt, (" met sam", " she", ", and then; 12 \n")) for prompt in PROMPTS]
    requests.append(Loglikelihood("", ENDS))  # the server puts the begin token before a text, as the engine does
    ours, theirs = dict(loglikelihoods(shared.model, requests)), dict(loglikelihoods(served, requests))
    assert ours.keys() == theirs.keys() == set(range(len(requests)))
    gaps = [
        abs(a - b)
        for index in ours
        for one, other in zip(ours[index], theirs[index], strict=True)
        for a, b in zip(one, other, strict=True)
    ]  # fmt: skip
    assert len(gaps) > 60
    assert max(gaps) <= PER_TOKEN
    split = [Loglikelihood("the nurse", (" and a 猫",))]  # one character, three tokens
    with pytest.raises(Unanswered, match="cannot be placed: a character is split over several tokens"):
        list(loglikelihoods(served, split))
    other = dict(loglikelihoods(served, [Loglikelihood(PROMPTS[0] + "s", requests[0].continuations)]))
    assert abs(sum(other[0][1]) - sum(ours[0][1])) > 100 * PER_TOKEN  # the comparison can fail


@pytest.mark.full
def test_a_suite_that_needs_log_probabilities_alone_gives_the_same_result(shared: Shared, echoing: str, tmp_path: Path) -> None:
    name, file = "crows-pairs", str(write(tmp_path / "pairs.csv", PAIRS))
    served = evaluate(name, f"endpoint:ours@{echoing}#form=text,logprobs=true,retries=0", file=file)
    suite = SUITES.load(name)
    own = run_suite(suite, shared.model, suite.spec.parse({"file": file})).values
    found = served.results[name].values
    assert found.attrs["asked"] == own.attrs["asked"]
    assert own.attrs["asked"]["scored"] == len(PAIRS) - 1  # one is not to be scored, here and there
    for column in ("more", "less"):
        np.testing.assert_allclose(found[column].values, own[column].values, atol=40 * PER_TOKEN)
    assert np.isfinite(own.more.values).sum() >= 10
    assert served.findings


@pytest.mark.full
def test_what_does_not_fit_there_is_refused_by_itself(shared: Shared, echoing: str) -> None:
    served: Any = load(f"endpoint:ours@{echoing}#form=text,logprobs=true,retries=0")
    refused: dict[int, AssayError] = {}
    requests = [Loglikelihood("the nurse" * 200, (" met",)), Loglikelihood("the nurse", (" met",))]
    found = dict(loglikelihoods(served, requests, refuse=lambda index, error: refused.update({index: error})))
    assert set(found) == {1}
    assert "maximum context length is 128 tokens" in str(refused[0])


@pytest.mark.full
def test_a_server_that_counts_a_token_too_few_is_not_believed(shared: Shared, echoing: str) -> None:
    """FastChat says that a text which reached its length holds one token less; from outside it could as well be cut short."""
    served: Any = load(f"endpoint:ours@{echoing}#form=text,retries=0")
    own = generate(shared.model, PROMPTS + ENDS, most=24)
    refused: dict[int, AssayError] = {}
    found: dict[int, str] = {}
    for index, prompt in enumerate(PROMPTS + ENDS):
        try:
            found[index] = generate(served, [prompt], most=24)[0]
        except AssayError as error:
            refused[index] = error
    assert found == {index: own[index] for index in found}
    assert found
    assert refused
    assert all("the server stopped before the number of tokens asked for" in str(error) for error in refused.values())
