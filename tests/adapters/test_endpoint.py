"""A model behind a server: a local one that speaks the published schema, and does wrong what servers do wrong."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from evals import SUITES
from evals.runner import MemorySink, run_suite
from workbench.adapters import endpoint
from workbench.adapters.endpoint import Endpoint, EndpointConfig
from workbench.core.errors import AssayError, BadValue, Incompatible, Unanswered, UnknownName
from workbench.core.measure import Generate, Loglikelihood, Needs, Rolling, Sample, Score
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.engine.generate import generate
from workbench.engine.score import loglikelihoods
from workbench.lab.refs import load as load_ref

pytest.importorskip("openai")

KEY = "sk-local-0123456789abcdef"
Reply = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    @property
    def owner(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.owner.lock:
            self.owner.asked.append((self.path, body, {name.lower(): text for name, text in self.headers.items()}))
            reply = self.owner.script.pop(0) if self.owner.script else self.owner.usual
            self.owner.under_way += 1
            self.owner.most_under_way = max(self.owner.most_under_way, self.owner.under_way)
        try:
            reply(self, body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client went away
        finally:
            with self.owner.lock:
                self.owner.under_way -= 1

    def answer(
        self, status: int, value: Any, *, kind: str = "application/json", missing: int = 0, headers: dict[str, str] | None = None
    ) -> None:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw) + missing))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """``script``: what it does next; ``usual``: what it does after that. ``asked``: (path, body, headers) of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.script, self.asked = threading.Lock(), list[Reply](), list[tuple[str, dict[str, Any], dict[str, str]]]()
        self.usual: Reply = said("fine")
        self.under_way = self.most_under_way = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield one
        one.shutdown()
        thread.join()


class Clock:
    """Time that passes only while someone sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def time(self) -> float:
        return self.now


def model(server: Server, clock: Clock | None = None, **options: Any) -> Endpoint:
    clock = clock or Clock()
    config = EndpointConfig(model="small", url=server.url, **{"timeout": 5.0, **options})
    return Endpoint(config, sleep=clock.sleep, clock=clock.time)


# --- replies ------------------------------------------------------------------------------------------------


def said(text: Any, why: Any = "stop", *, usage: tuple[int, int] | None = (7, 2), **extra: Any) -> Reply:
    """A reply in the published form, of a chat or of a text as it was asked."""

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        chat = handler.path.endswith("/chat/completions")
        content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text, "logprobs": None}
        value: dict[str, Any] = {
            "id": "x", "object": "chat.completion" if chat else "text_completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": why, **content}], **extra,
        }  # fmt: skip
        if usage is not None:
            value["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        handler.answer(200, value)

    return reply


def failed(status: int, words: str = "no", **headers: str) -> Reply:
    said = {"error": {"message": words, "type": "t", "code": None}}
    return lambda handler, body: handler.answer(status, said, headers={name.replace("_", "-"): text for name, text in headers.items()})


def raw(value: Any, *, kind: str = "application/json", missing: int = 0) -> Reply:
    return lambda handler, body: handler.answer(200, value, kind=kind, missing=missing)


def slow(seconds: float) -> Reply:
    def reply(handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        said("late")(handler, body)

    return reply


def closed(handler: Handler, body: dict[str, Any]) -> None:
    handler.close_connection = True


def pieces(text: str) -> list[str]:
    """Words with the space before them: the tokens of the local server."""
    out: list[str] = []
    for letter in text:
        if letter == " " or not out:
            out.append(letter)
        else:
            out[-1] += letter
    return out


def value_of(tokens: Sequence[str], number: int) -> float:
    return -0.1 * len(tokens[number]) - 0.01 * number


def echoing(handler: Handler, body: dict[str, Any], change: Callable[[dict[str, Any]], None] = lambda told: None) -> None:
    """The prompt with its tokens' log-probabilities, and one token more."""
    tokens = [*pieces(body["prompt"]), " more"]
    values = [None, *(value_of(tokens, n) for n in range(1, len(tokens)))]
    told = {"tokens": tokens, "token_logprobs": values, "top_logprobs": None, "text_offset": None}
    change(told)
    choice = {"index": 0, "finish_reason": "length", "text": body["prompt"] + " more", "logprobs": told}
    value = {"id": "x", "object": "text_completion", "created": 1, "model": "small", "choices": [choice]}
    handler.answer(200, value | {"usage": {"prompt_tokens": len(tokens) - 1, "completion_tokens": 1, "total_tokens": len(tokens)}})


# --- what is asked and what comes back ----------------------------------------------------------------------


def test_a_chat_is_asked_as_the_config_says(server: Server) -> None:
    served = model(server, system="Be brief.")
    assert generate(served, ["Hello"], most=5, until=["\n"], seed=3) == ["fine"]
    path, body, headers = server.asked[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "small", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "max_tokens": 5, "temperature": 0.0, "seed": 3, "stop": ["\n"],
    }  # fmt: skip
    assert "openai-organization" not in headers
    assert generate(model(server, length_field="max_completion_tokens"), ["Hello"], temperature=0.5) == ["fine"]
    assert server.asked[1][1]["max_completion_tokens"] == 16
    assert [message["role"] for message in server.asked[1][1]["messages"]] == ["user"]  # nothing is put before it


def test_a_text_is_continued_up_to_the_first_of_its_ends(server: Server) -> None:
    server.usual = said("one. two; three")
    served = model(server, form="text")
    assert generate(served, ["Count: "], most=5, until=["A", "B", "C", "D", ";", "."]) == ["one"]
    path, body, _ = server.asked[0]
    assert (path, body["prompt"], body["stop"]) == ("/v1/completions", "Count: ", ["A", "B", "C", "D"])  # four at most are sent
    assert generate(served, ["Count: "]) == ["one. two; three"]
    assert "stop" not in server.asked[1][1]


def test_many_requests_run_at_once_and_come_back_in_place(server: Server) -> None:
    def reply(handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(0.05)
        said(f"to {body['messages'][0]['content']}")(handler, body)

    server.usual = reply
    done: list[int] = []
    found = generate(model(server, at_once=4), [str(n) for n in range(12)], progress=lambda now, total, words: done.append(now))
    assert found == [f"to {n}" for n in range(12)]
    assert done == list(range(1, 13))
    assert 2 <= server.most_under_way <= 4


def test_log_probabilities_are_those_of_the_continuation_alone(server: Server) -> None:
    server.usual = echoing
    served = model(server, form="text", logprobs=True)
    assert served.abilities == {"generate", "logprobs"}
    requests = [Loglikelihood("the cat", (" sat on", " ran")), Loglikelihood("a", (" b",))]
    found = dict(loglikelihoods(served, requests))
    for number, request in enumerate(requests):
        for continuation, values in zip(request.continuations, found[number], strict=True):
            tokens = pieces(request.context + continuation)
            first = len(pieces(request.context))
            assert values == pytest.approx([value_of(tokens, n) for n in range(first, len(tokens))], abs=1e-12)
    body = server.asked[0][1]
    assert (body["echo"], body["logprobs"], body["max_tokens"]) == (True, 1, 1)


def test_a_continuation_without_numbers_of_its_own_is_refused(server: Server) -> None:
    server.usual = echoing
    served = model(server, form="text", logprobs=True)
    refused: dict[int, str] = {}
    requests = [Loglikelihood("the c", ("at",)), Loglikelihood("", ("x",)), Loglikelihood("a", ("",)), Loglikelihood("a", (" b",))]
    found = dict(loglikelihoods(served, requests, refuse=lambda index, error: refused.update({index: str(error)})))
    assert set(found) == {3}
    assert "one token holds its beginning and the context's end" in refused[0]
    assert "non-empty" in refused[1]
    assert "at least one token long" in refused[2]
    with pytest.raises(Unanswered, match="no number of its own"):
        list(loglikelihoods(served, requests[:1]))


ODD_ECHOES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "none": (lambda told: told.clear(), "no tokens with their log-probabilities"),
    "shorter": (lambda told: told["token_logprobs"].pop(), "no tokens with their log-probabilities"),
    "text": (lambda told: told["tokens"].__setitem__(1, " dog"), "do not spell the text"),
    "hole": (lambda told: told["token_logprobs"].__setitem__(1, None), "has no log-probability"),
    "positive": (lambda told: told["token_logprobs"].__setitem__(1, 0.5), "has no log-probability"),
}


def begun(word: str) -> Reply:
    """An echo that says the begin token first, as servers do whose tokenizer puts one there."""

    def change(told: dict[str, Any]) -> None:
        told["tokens"] = [word, *told["tokens"]]
        told["token_logprobs"] = [None, -0.5, *told["token_logprobs"][1:]]

    return lambda handler, body: echoing(handler, body, change)


@pytest.mark.parametrize("word", ["<s>", ""])
def test_a_begin_token_before_the_text_is_left_out(server: Server, word: str) -> None:
    server.usual = begun(word)
    served = model(server, form="text", logprobs=True)
    found = dict(loglikelihoods(served, [Loglikelihood("the cat", (" sat",)), Loglikelihood("", ("the cat",))]))
    tokens = pieces("the cat sat")
    assert found[0] == [pytest.approx([value_of(tokens, 2)])]
    assert found[1] == [pytest.approx([-0.5, value_of(tokens, 1)])]


def test_a_text_of_one_token_repeated_is_not_taken_for_one_with_a_begin_token(server: Server) -> None:
    """Its tokens from the second on, with the one that was generated, spell it too."""

    told = {"tokens": ["a"] * 4, "token_logprobs": [None, -1.0, -2.0, -3.0]}
    server.usual = lambda handler, body: echoing(handler, body, lambda usual: usual.update(told))
    found = dict(loglikelihoods(model(server, form="text", logprobs=True), [Loglikelihood("a", ("aa",))]))
    assert found == {0: [[-1.0, -2.0]]}
    refused: dict[int, str] = {}
    requests = [Loglikelihood("", ("aaa",))]
    assert not list(loglikelihoods(model(server, form="text", logprobs=True), requests, refuse=lambda n, e: refused.update({n: str(e)})))
    assert "this server puts no begin token before a text" in refused[0]


def test_a_server_that_answers_without_log_probabilities_is_not_asked_twice(server: Server) -> None:
    served = model(server, form="text", logprobs=True, at_once=1)
    with pytest.raises(Unanswered, match=r"the server answered without them\. Leave out logprobs=true"):
        list(loglikelihoods(served, [Loglikelihood("a", (" b", " c")), Loglikelihood("d", (" e",))]))
    assert len(server.asked) == 1


def test_a_character_in_several_tokens_is_refused_by_itself(server: Server) -> None:
    def change(told: dict[str, Any]) -> None:
        if "猫" in "".join(told["tokens"]):
            told["tokens"] = ["the", " \ufffd", "\ufffd", " more"]
            told["token_logprobs"] = [None, -1.0, -1.0, -1.0]

    server.usual = lambda handler, body: echoing(handler, body, change)
    refused: dict[int, str] = {}
    requests = [Loglikelihood("the", (" 猫",)), Loglikelihood("the", (" cat",))]
    found = dict(loglikelihoods(model(server, form="text", logprobs=True), requests, refuse=lambda n, e: refused.update({n: str(e)})))
    assert set(found) == {1}
    assert "a character is split over several tokens" in refused[0]
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [({"detail": "no such model"}, "no such model"), ({"message": "too long"}, "too long"), ("plain words", "plain words")],
)
def test_what_a_server_says_of_an_error_is_passed_on_whatever_its_form(server: Server, body: Any, words: str) -> None:
    server.usual = lambda handler, asked: handler.answer(400, body if isinstance(body, dict) else body.encode())
    with pytest.raises(Unanswered, match=f"the request was refused: status 400: {words}"):
        generate(model(server), ["x"])


@pytest.mark.parametrize("kind", ODD_ECHOES)
def test_an_echo_in_another_form_is_an_error_not_a_number(server: Server, kind: str) -> None:
    change, words = ODD_ECHOES[kind]
    server.usual = lambda handler, body: echoing(handler, body, change)
    served = model(server, form="text", logprobs=True, retries=1)
    with pytest.raises(Unanswered, match=f"in 2 of 2 tries: .*{words}"):
        list(loglikelihoods(served, [Loglikelihood("the", (" cat",))]))


# --- what servers do wrong ----------------------------------------------------------------------------------

TROUBLES: dict[str, tuple[Reply, str]] = {
    "busy": (failed(429, "slow down"), "status 429: .*slow down"),
    "broken": (failed(500, "oops"), "status 500: .*oops"),
    "overloaded": (failed(503), "status 503"),
    "cut off": (raw(b'{"choices": [', missing=50), "cut off"),
    "no JSON": (raw(b'{"choices": ['), "not in the published form"),
    "a page": (raw(b"<html>down</html>", kind="text/html"), "not in the published form"),
    "no choices": (raw({"id": "x", "object": "o", "created": 1, "model": "m", "choices": []}), "has not one choice"),
    "null": (raw(b"null"), "has not one choice"),
    "no text": (said(None), "has no text"),
    "no end": (said("fi", None), "does not say why it ended"),
    "closed": (closed, "connection failed"),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_what_may_pass_is_tried_again_with_growing_pauses(server: Server, kind: str) -> None:
    reply, words = TROUBLES[kind]
    clock = Clock()
    server.script = [reply, reply]
    assert generate(model(server, clock), ["x"]) == ["fine"]
    assert len(server.asked) == 3
    first, second = clock.slept
    assert 0.25 <= first <= 0.5 <= second <= 1.0
    server.script = [reply, reply, reply]
    with pytest.raises(Unanswered, match=f"no usable reply in 3 of 3 tries: .*{words}.* Try again later") as error:
        generate(model(server, clock, retries=2), ["x"])
    assert error.value.exit_code == 3


def test_a_slow_reply_is_not_waited_for(server: Server) -> None:
    server.script = [slow(1.0)]
    started = time.monotonic()
    assert generate(model(server, timeout=0.15), ["x"]) == ["fine"]
    assert time.monotonic() - started < 0.9
    server.script = [slow(0.5)]
    with pytest.raises(Unanswered, match="in 1 of 1 tries: the reply did not come in time"):
        generate(model(server, timeout=0.1, retries=0), ["x"])


def test_a_server_that_is_not_there(server: Server) -> None:
    served = Endpoint(EndpointConfig(model="m", url="http://127.0.0.1:9/v1", retries=1), sleep=lambda seconds: None)
    with pytest.raises(Unanswered, match=r"At 'http://127\.0\.0\.1:9/v1' no usable reply in 2 of 2 tries: the connection failed"):
        generate(served, ["x"])


def test_the_pause_a_server_asks_for_is_kept_and_a_long_one_is_not_waited_for(server: Server) -> None:
    clock = Clock()
    server.script = [failed(429, Retry_After="7")]
    assert generate(model(server, clock), ["x"]) == ["fine"]
    assert clock.now >= 7.0
    server.script = [failed(429, Retry_After="3600")]
    with pytest.raises(Unanswered, match="in 1 of 6 tries: status 429"):
        generate(model(server, clock), ["x"])


def test_no_more_requests_a_minute_than_allowed(server: Server) -> None:
    clock = Clock()
    generate(model(server, clock, per_minute=30, at_once=1), ["a", "b", "c", "d"])
    assert clock.now == pytest.approx(6.0)


@pytest.mark.parametrize(("status", "do"), [(401, "Set WORKBENCH_ENDPOINT_KEY"), (403, "Set WORKBENCH_ENDPOINT_KEY"), (404, "")])
def test_what_will_not_pass_ends_the_run_at_once(server: Server, status: int, do: str) -> None:
    server.usual = failed(status, "never")
    with pytest.raises(Unanswered, match=f"the request failed: status {status}.*never.*{do}"):
        generate(model(server, at_once=1), ["a", "b", "c"])
    assert len(server.asked) == 1


def test_a_request_that_is_refused_leaves_the_others(server: Server) -> None:
    server.script = [
        failed(400, "too long"),
        said("", "content_filter"),
        said("cut", "length", usage=(7, 3)),
        said("to the end", "length", usage=(7, 5)),
    ]
    refused: dict[int, AssayError] = {}
    served = model(server, at_once=1)
    found = dict(served.generations([Generate(str(n), 5) for n in range(5)], refuse=lambda index, error: refused.update({index: error})))
    assert found == {3: "to the end", 4: "fine"}
    assert "status 400" in str(refused[0])
    assert "filter withheld" in str(refused[1])
    assert "stopped before the number of tokens" in str(refused[2])
    with pytest.raises(BadValue, match="number of tokens to generate"):
        generate(served, ["x"], most=0)


# --- cost ---------------------------------------------------------------------------------------------------


def test_the_cap_is_kept_before_a_request_is_sent(server: Server) -> None:
    server.usual = said("fine", usage=(10, 5))
    served = model(server, price_in=1000.0, price_out=2000.0, cost_cap=0.25, at_once=1)
    assert generate(served, ["x"], most=10) == ["fine"]
    assert served.spent == pytest.approx((10 * 1000 + 5 * 2000) / 1e6)
    asked = len(server.asked)
    with pytest.raises(Unanswered, match=r"next request was not sent: it could cost .* of the cap of 0\.25 .* Raise cost_cap"):
        generate(served, ["x" * 200], most=10)
    assert len(server.asked) == asked
    with pytest.raises(Unanswered, match="was not sent"):
        generate(served, ["x"] * 50, most=10)
    assert served.spent <= 0.25
    assert len(server.asked) < 20


def test_what_a_reply_does_not_say_counts_at_most(server: Server) -> None:
    server.script = [said("fine", usage=None), slow(0.4), failed(500), said("fine", usage=(1, 1))]
    served = model(server, price_in=1.0, price_out=1.0, timeout=0.1)
    most = (len("xy") + 64 + 16) / 1e6
    generate(served, ["xy"])
    assert served.spent == pytest.approx(most)
    generate(served, ["xy"])  # late (perhaps paid for), then broken (not), then fine
    assert served.spent == pytest.approx(2 * most + 2 / 1e6)


# --- the key ------------------------------------------------------------------------------------------------


def test_the_key_goes_into_the_header_and_nowhere_else(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WORKBENCH_ENDPOINT_KEY", KEY)
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "other-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: other-secret")
    caplog.set_level(logging.DEBUG)
    served = model(server, retries=1)
    generate(served, ["x"])
    headers = server.asked[0][2]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "other-secret" not in str(headers)
    server.usual = failed(401, f"the key {KEY} is wrong")
    texts: list[str] = []
    for reply in (failed(401, f"the key {KEY} is wrong"), failed(400, KEY), failed(500, f"{KEY} {KEY}"), said(f"my key is {KEY}")):
        server.usual = reply
        with pytest.raises(Unanswered) as error:
            generate(served, ["x"])
        seen: BaseException | None = error.value
        while seen is not None:
            texts += [str(seen), repr(seen), repr(vars(seen))]
            assert not hasattr(seen, "request")  # the client's errors carry the header
            seen = seen.__cause__ or seen.__context__
    texts += [served.config.canonical(), served.digest(), repr(served.config), caplog.text, repr(vars(served.config))]
    assert KEY not in "".join(texts)
    assert "***" in "".join(texts)


def test_without_a_key_none_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_ENDPOINT_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    generate(model(server), ["x"])
    assert KEY not in str(server.asked)
    generate(model(server, key_variable="OPENAI_API_KEY"), ["x"])
    assert server.asked[1][2]["authorization"] == f"Bearer {KEY}"
    with pytest.raises(BadValue, match="https where OPENAI_API_KEY is set"):
        endpoint.load("m@http://example.com/v1", key_variable="OPENAI_API_KEY")


# --- references, configs, and what an endpoint is not --------------------------------------------------------


def test_a_reference_says_what_is_asked(server: Server) -> None:
    served: Any = load_ref(f"endpoint:team/small@{server.url}#form=text,logprobs=true,at_once=2")
    assert served.config == EndpointConfig(model="team/small", url=server.url, form="text", logprobs=True, at_once=2)
    assert served.name == f"endpoint:team/small@{server.url}#form=text,logprobs=true,at_once=2"
    same, other = endpoint.load(f"team/small@{server.url}", form="text", retries=1), endpoint.load(f"team/small@{server.url}")
    assert served.digest() == same.digest() != other.digest()


@pytest.mark.parametrize(
    ("text", "options", "error", "words"),
    [
        ("m", {}, BadValue, "MODEL@URL"),
        ("@http://x", {}, BadValue, "MODEL@URL"),
        ("m@http://", {}, BadValue, "begins with http"),
        ("m@https://me:secret@host/v1", {}, BadValue, "without user, password"),
        ("m@https://host/v1?key=secret", {}, BadValue, "without user, password"),
        ("m@http://x/v1", {"tempo": 1}, UnknownName, "no field 'tempo' in endpoint:m"),
        ("m@http://x/v1", {"logprobs": True}, BadValue, "it must be one without logprobs for form=chat"),
        ("m@http://x/v1", {"form": "text", "system": "s"}, BadValue, "it must be one without system for form=text"),
        ("m@http://x/v1", {"cost_cap": 1.0}, BadValue, "unless price_in and price_out are given"),
        ("m@http://x/v1", {"retries": -1}, BadValue, "retries"),
    ],
)
def test_what_is_no_endpoint_is_refused(text: str, options: dict[str, Any], error: type[AssayError], words: str) -> None:
    with pytest.raises(error, match=words) as found:
        endpoint.load(text, **options)
    assert "secret" not in str(found.value)


def test_nothing_can_be_seen_inside(server: Server) -> None:
    served = model(server)
    assert len(served.sites()) == 0
    with pytest.raises(Incompatible, match="it offers generate alone"):
        served.run("x")
    with pytest.raises(UnknownName, match="in this endpoint"):
        served.weight("W_E")
    with pytest.raises(Incompatible, match="does not offer logprobs"):
        list(loglikelihoods(served, [Loglikelihood("a", ("b",))]))
    needs = Needs(abilities=frozenset({"logits"}), sites=("blocks.*.attn.hook_pattern",), tokenizer=True)
    assert [reason.split(".")[0] for reason in needs.objections(served)] == [
        "the model does not offer logits", "The pattern 'blocks",
    ]  # fmt: skip
    assert Needs(abilities=frozenset({"generate"}), tokenizer=True).objections(served) == []


# --- evals --------------------------------------------------------------------------------------------------


class NoSpec(Spec):
    pass


class Served:
    """A suite that asks for text, log-likelihoods or a rolling text."""

    name, spec = "served", NoSpec

    def __init__(self, ask: Callable[[str], Any], *abilities: str) -> None:
        self.ask, self.needs = ask, Needs(abilities=frozenset(abilities), inputs=(), tokenizer=True)

    def samples(self, spec: Spec) -> list[Sample]:
        return [Sample(f"s{n}", {"text": f"word {n}"}) for n in range(5)]

    def request(self, sample: Sample, spec: Spec) -> Any:
        return self.ask(sample.facts["text"])

    def score(self, sample: Sample, response: Any, spec: Spec) -> Score:
        return Score(sample.id, {"length": float(len(response)) if isinstance(response, str) else float(sum(map(sum, response)))})

    def aggregate(self, scores: Sequence[Score], spec: Spec) -> Result:
        raise NotImplementedError


def records(suite: Any, served: Endpoint) -> list[dict[str, Any]]:
    sink = MemorySink()
    with pytest.raises(NotImplementedError):
        run_suite(suite, served, sink=sink, batch=2)
    return sink.read()


def test_a_suite_that_needs_text_alone_runs_on_an_endpoint(server: Server) -> None:
    server.script = [failed(500), failed(400, "no")]
    found = records(Served(lambda text: Generate(text, 4), "generate"), model(server, at_once=1))
    assert [record["values"] for record in found] == [{}, *({"length": 4.0} for _ in range(4))]
    assert "the request was refused: status 400" in found[0]["unscored"]
    assert "key" not in json.dumps(found)


def test_a_suite_that_needs_log_probabilities_runs_where_they_are_offered(server: Server) -> None:
    server.usual = echoing
    served = model(server, form="text", logprobs=True)
    one = records(Served(lambda text: Loglikelihood(text, (" and so",)), "logprobs"), served)
    tokens = pieces("word 3 and so")
    assert one[3]["values"]["length"] == pytest.approx(value_of(tokens, 2) + value_of(tokens, 3))
    rolled = records(Served(lambda text: Rolling(" and so", text), "logprobs"), served)
    assert [record["values"] for record in rolled] == [record["values"] for record in one]
    with pytest.raises(Incompatible, match="'served' cannot run on this endpoint model: the model does not offer logprobs"):
        records(Served(lambda text: Loglikelihood(text, ("x",)), "logprobs"), model(server))


ONLY_WRITTEN = {"refusal", "over-refusal"}
"""Suites that read what a model writes, and so ask any server."""
LOOKING = {"weat", "speaker-gaps", "image-robustness", "image-text", "image-triggers", "drawn-attributes", "memorised-images"}
"""Suites that look at a model themselves, of which a server shows nothing."""
OWN_DRAWS = {"toxicity-continuations", "bold"}
"""Suites that draw tokens themselves, with seeds of their own, which no server lets them."""


@pytest.mark.parametrize("name", [*SUITES])
def test_every_suite_asks_for_no_more_than_it_uses(server: Server, name: str) -> None:
    needs = SUITES.load(name).needs
    plain, full = model(server), model(server, form="text", logprobs=True)
    if name in LOOKING:
        assert all("and this endpoint model reads text" in one or "it is defined for" in one for one in needs.objections(full))
        assert needs.objections(full)
        return
    if name in OWN_DRAWS:
        assert needs.objections(full) == ["the model does not offer logits"]
        return
    assert needs.objections(full) == []
    if name in ONLY_WRITTEN:
        assert needs.objections(plain) == []
        return
    (reason,) = needs.objections(plain)
    assert reason.startswith("the model does not offer logprobs (logprobs: whether a server gives")
