"""A model behind an OpenAI-compatible server: it answers requests in text, and where the server offers them in log-probabilities.

The key comes from an environment variable alone and goes nowhere but into the request's header: it is in no config, no result, no log and
no error. A cost cap is kept before a request is sent, by the most that the request could cost. What a server may do wrong (too many
requests, errors of its own, replies that are late, cut off or not in the published form) is tried again with growing pauses, and then is an
error; a reply is never repaired.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from workbench.core.errors import AssayError, BadValue, Incompatible, MissingExtra, Unanswered, UnknownName
from workbench.core.measure import Generate, Loglikelihood
from workbench.core.protocol import Edit, LogitsAt, Progress, Resume, Tokenizer, Trace, silent
from workbench.core.sites import Selection, SiteTable
from workbench.core.spec import Spec, canonical_json

LONGEST_PAUSE = 120.0
"""Seconds; a server that asks for more is not waited for."""
NO_LOGPROBS = "whether a server gives a text's log-probabilities must be said: form=text,logprobs=true; many give none"
STOPS = 4
"""Most stop texts a server takes; all are looked for in the reply besides."""
T = TypeVar("T")
Refuse = Callable[[int, AssayError], None]


class EndpointConfig(Spec):
    """What is asked, and how. ``price_in`` and ``price_out`` are per million tokens, in the currency of ``cost_cap``."""

    model_config = ConfigDict(hide_input_in_errors=True)

    model: str = Field(min_length=1)
    url: str
    form: Literal["chat", "text"] = Field(default="chat", description="chat: a user's message; text: the prompt is continued as it stands")
    system: str | None = Field(default=None, description="the system message of a chat; none is sent unless it is given")
    logprobs: bool = Field(default=False, description="the server echoes a prompt with its tokens' log-probabilities (needs form=text)")
    key_variable: str = Field(default="WORKBENCH_ENDPOINT_KEY", description="the environment variable that holds the key")
    timeout: PositiveFloat = Field(default=60.0, description="seconds a reply may take")
    retries: NonNegativeInt = 5
    backoff: PositiveFloat = Field(default=0.5, description="seconds before the first retry; each next one waits twice as long")
    per_minute: PositiveInt | None = Field(default=None, description="requests sent a minute at most")
    at_once: PositiveInt = Field(default=4, description="requests under way at once")
    price_in: NonNegativeFloat = 0.0
    price_out: NonNegativeFloat = 0.0
    cost_cap: PositiveFloat | None = None
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    @model_validator(mode="after")
    def _fits(self) -> EndpointConfig:
        if wrong := _wrong_url(self.url):
            raise ValueError(f"one whose url is {wrong}")
        if self.logprobs and self.form != "text":
            raise ValueError("one without logprobs for form=chat: a chat template would stand between context and continuation")
        if self.system is not None and self.form != "chat":
            raise ValueError("one without system for form=text: there is no message to put it in")
        if self.cost_cap is not None and not (self.price_in and self.price_out):
            raise ValueError("one without cost_cap unless price_in and price_out are given: a cost cannot be kept below it")
        return self


def _wrong_url(url: str) -> str:
    """What ``url`` must be and is not, or nothing. The text does not repeat it: it may hold a secret."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "a URL"
    if parts.scheme not in ("http", "https") or not host:
        return "a URL that begins with http:// or https://"
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        return "a URL without user, password, query or fragment; the key comes from the environment"
    return ""


@dataclass(frozen=True)
class _Refused:
    """A request that this server will not answer, whatever else it answers."""

    error: AssayError


class _Again(Exception):
    """A failure that may pass: what was found, and the seconds the server asks to wait."""

    def __init__(self, found: str, wait: float = 0.0) -> None:
        super().__init__(found)
        self.found, self.wait = found, wait


class _Purse:
    """What was spent, and what requests under way may still cost."""

    def __init__(self, config: EndpointConfig) -> None:
        self.config, self.spent, self._held, self._lock = config, 0.0, 0.0, threading.Lock()

    def price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.config.price_in + tokens_out * self.config.price_out) / 1e6

    def hold(self, most: float) -> None:
        """Set ``most`` aside, or raise Unanswered where the cap could be passed."""
        cap = self.config.cost_cap
        with self._lock:
            if cap is not None and self.spent + self._held + most > cap:
                found = f"it could cost {most:.6g}, and of the cap of {cap:g} {self.spent + self._held:.6g} is spent or set aside"
                raise Unanswered(self.config.url, "the next request was not sent", found, do="Raise cost_cap to go on.")
            self._held += most

    def pay(self, most: float, actual: float) -> None:
        """``most`` was set aside and ``actual`` is owed."""
        with self._lock:
            self._held -= most
            self.spent += actual


class Endpoint:
    """A served model. It is no ``HookedModel`` to look into: it has no sites, weights or logits, and what asks for them is told so.

    ``generations`` and ``loglikelihoods`` answer the requests of ``core.measure``. ``spent`` is what the replies cost so far, counted as
    asked at most where a reply does not say, and where none came. ``sleep`` and ``clock`` (seconds) can be replaced in tests.
    """

    family = "endpoint"
    reads = "text"

    def __init__(
        self, config: EndpointConfig, *, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        self.tokenizer: Tokenizer | None = None
        self.abilities = frozenset({"generate"} | ({"logprobs"} if config.logprobs else set()))
        self.why_not = {} if config.logprobs else {"logprobs": NO_LOGPROBS}
        self._sleep, self._clock, self._purse = sleep, clock, _Purse(config)
        self._pace, self._next = threading.Lock(), 0.0
        key = os.environ.get(config.key_variable, "")
        host = urlsplit(config.url).hostname or ""
        if key and urlsplit(config.url).scheme == "http" and host not in ("127.0.0.1", "::1", "localhost"):
            raise BadValue("url", config.url, f"https where {config.key_variable} is set: a key is not sent in the clear")
        self._client = _client(config, key)

    @property
    def spent(self) -> float:
        return self._purse.spent

    def sites(self) -> SiteTable:
        """None: nothing can be seen inside."""
        return SiteTable([], where="this endpoint")

    def weight(self, name: str) -> Any:
        raise UnknownName("weight", name, [], where="in this endpoint")

    def run(
        self,
        batch: Any,
        *,
        capture: Selection = (),
        edit: Sequence[Edit] = (),
        logits: LogitsAt = "all",
        grad: bool = False,
        resume: Resume | None = None,
        cache: bool = False,
    ) -> Trace:
        """Refused: an endpoint has no forward pass to show."""
        raise Incompatible("run", "this endpoint", [f"it offers {', '.join(sorted(self.abilities))} alone"])

    def digest(self) -> str:
        """sha256 (hex) over what is asked: URL, model, form and system message. What the server computes cannot be told from outside."""
        c = self.config
        asked = {"family": self.family, "url": c.url.rstrip("/"), "model": c.model, "form": c.form, "system": c.system}
        return hashlib.sha256(canonical_json(asked).encode()).hexdigest()

    # --- requests -------------------------------------------------------------------------------------------

    def generations(
        self,
        requests: Sequence[Generate],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        progress: Progress = silent,
        refuse: Refuse | None = None,
    ) -> Iterator[tuple[int, str]]:
        """(index of the request, its text) in the order they come; a request the server will not answer goes to ``refuse``, or raises."""
        ask = lambda request: self._generated(request, temperature, seed)  # noqa: E731  # two arguments are fixed
        yield from self._each(requests, ask, progress, "generating", refuse)

    def loglikelihoods(
        self, requests: Sequence[Loglikelihood], *, progress: Progress = silent, refuse: Refuse | None = None
    ) -> Iterator[tuple[int, list[list[float]]]]:
        """(index of the request, for each continuation its tokens' log-probabilities in nats), in the order they come. Raises Incompatible
        where the server does not offer them."""
        if "logprobs" not in self.abilities:
            raise Incompatible("log-likelihoods", "this endpoint", [f"it does not offer logprobs ({NO_LOGPROBS})"])
        yield from self._each(requests, self._scored, progress, "scoring", refuse)

    def _each(
        self, requests: Sequence[Any], ask: Callable[[Any], Any], progress: Progress, words: str, refuse: Refuse | None
    ) -> Iterator[tuple[int, Any]]:
        ended = threading.Event()

        def one(request: Any) -> Any:
            if ended.is_set():
                return None
            try:
                return ask(request)
            except BaseException:
                ended.set()  # at once, so that the next request is not sent
                raise

        with ThreadPoolExecutor(self.config.at_once) as pool:
            under_way = {pool.submit(one, request): index for index, request in enumerate(requests)}
            try:
                for done, future in enumerate(as_completed(under_way), 1):
                    found = future.result()
                    progress(done, len(requests), words)
                    if not isinstance(found, _Refused):
                        yield under_way[future], found
                    elif refuse is None:
                        raise found.error
                    else:
                        refuse(under_way[future], found.error)
            finally:
                ended.set()
                for future in under_way:
                    future.cancel()

    def _generated(self, request: Generate, temperature: float, seed: int) -> str | _Refused:
        c = self.config
        if request.most < 1:
            return _Refused(BadValue("the number of tokens to generate", request.most, "at least 1"))
        options: dict[str, Any] = {"model": c.model, "temperature": temperature, "seed": seed, "extra_body": {c.length_field: request.most}}
        if request.until:
            options["stop"] = list(request.until[:STOPS])
        if c.form == "text":
            send = lambda: self._client.completions.create(prompt=request.prompt, **options)  # noqa: E731  # called at each try
        else:
            messages = [{"role": "system", "content": c.system}] if c.system is not None else []
            messages.append({"role": "user", "content": request.prompt})
            send = lambda: self._client.chat.completions.create(messages=messages, **options)  # noqa: E731  # called at each try
        read = self._asked(send, self._text, len((request.prompt + (c.system or "")).encode()), request.most)
        if isinstance(read, _Refused):
            return read
        text, why, made = read
        if why == "content_filter":
            return _Refused(Unanswered(c.url, "the request was refused", "the server's filter withheld the text"))
        if why == "length" and made is not None and made < request.most:
            return _Refused(Unanswered(c.url, "the text was cut short", "the server stopped before the number of tokens asked for"))
        cuts = [place for stop in request.until if (place := text.find(stop)) >= 0]
        return text[: min(cuts)] if cuts else text

    def _scored(self, request: Loglikelihood) -> list[list[float]] | _Refused:
        out: list[list[float]] = []
        first = len(request.context)
        for continuation in request.continuations:
            if not continuation:
                return _Refused(BadValue("a continuation", continuation, "at least one token long"))
            whole = request.context + continuation
            options = {"model": self.config.model, "temperature": 0, "max_tokens": 1, "echo": True, "logprobs": 1}
            send = lambda text=whole, o=options: self._client.completions.create(prompt=text, **o)  # noqa: E731  # called at each try
            read = lambda reply, text=whole: self._echoed(reply, text)  # noqa: E731  # one a text
            found = self._asked(send, read, len(whole.encode()), 1)
            if isinstance(found, _Refused):
                return found
            starts = [0]
            for token, _value in found:
                starts.append(starts[-1] + len(token))
            if first not in starts:
                return _Refused(
                    Unanswered(
                        self.config.url, "the continuation has no number of its own", "one token holds its beginning and the context's end"
                    )
                )
            values = [value for (_, value), start in zip(found, starts, strict=False) if start >= first]
            if any(value is None for value in values):
                rule = "non-empty: this server puts no begin token before a text, and gives its first token no number"
                return _Refused(BadValue("a log-likelihood request's context", request.context, rule))
            out.append([value for value in values if value is not None])
        return out

    # --- one request ----------------------------------------------------------------------------------------

    def _asked(self, send: Callable[[], Any], read: Callable[[Any], T | _Refused], most_in: int, most_out: int) -> T | _Refused:
        """``read`` of the reply to ``send``, tried as often as the config allows. A text has no more tokens than bytes, besides a few of
        its frame, which bounds the cost. Errors of the client are left behind: they hold the request with its header."""
        most = self._purse.price(most_in + 64, most_out)
        tries = self.config.retries + 1
        found, attempt = "", 0
        for attempt in range(tries):
            outcome = self._tried(send, read, most)
            if not isinstance(outcome, _Again):
                if isinstance(outcome, Unanswered):
                    raise outcome
                return outcome
            found = self._clean(outcome.found)
            if attempt + 1 == tries or outcome.wait > LONGEST_PAUSE:
                break
            self._pause(attempt, outcome.wait)
        raise Unanswered(self.config.url, f"no usable reply in {attempt + 1} of {tries} tries", found, do="Try again later.")

    def _tried(self, send: Callable[[], Any], read: Callable[[Any], T | _Refused], most: float) -> T | _Refused | _Again | Unanswered:
        """What one try came to. Errors are given back, not raised from those of the client."""
        self._purse.hold(most)
        owed = most
        try:
            self._wait_for_turn()
            try:
                reply = send()
            except Exception as error:
                failure, paid = _told(error)
                owed = most if paid else 0.0
                return self._refusal(*failure) if isinstance(failure, tuple) else failure
            owed = self._owed(reply, most)
            try:
                self._keyless(reply)
                return read(reply)
            except _Again as again:
                return again
        finally:
            self._purse.pay(most, owed)

    def _refusal(self, status: int, words: str) -> _Refused | Unanswered:
        """What a status means that will not pass: about this request alone, or about all of them."""
        found = f"status {status}: {self._clean(words)}"
        if status in (400, 413, 422):
            return _Refused(Unanswered(self.config.url, "the request was refused", found))
        do = f"Set {self.config.key_variable} to a key of this server." if status in (401, 403) else ""
        return Unanswered(self.config.url, "the request failed", found, do=do)

    def _wait_for_turn(self) -> None:
        if self.config.per_minute is None and not self._next:
            return
        with self._pace:
            now = self._clock()
            at = max(now, self._next)
            self._next = at + 60.0 / self.config.per_minute if self.config.per_minute is not None else self._next
        if at > now:
            self._sleep(at - now)

    def _pause(self, attempt: int, asked: float) -> None:
        own = min(LONGEST_PAUSE, self.config.backoff * 2**attempt) * random.SystemRandom().uniform(0.5, 1.0)
        if asked:
            with self._pace:  # nobody asks before the server wants to be asked
                self._next = max(self._next, self._clock() + asked)
        self._sleep(max(own, asked))

    def _text(self, reply: Any) -> tuple[str, str, int | None]:
        """(text, why it ended, tokens made) of a reply in the published form; ``_Again`` for any other."""
        choices = getattr(reply, "choices", None)
        if not isinstance(choices, list) or len(choices) != 1:
            raise _Again("the reply is not in the published form: it has not one choice")
        choice = choices[0]
        text = getattr(choice, "text", None) if self.config.form == "text" else getattr(getattr(choice, "message", None), "content", None)
        why = getattr(choice, "finish_reason", None)
        if why == "content_filter":
            return "", why, None
        if not isinstance(text, str) or not isinstance(why, str):
            raise _Again("the reply is not in the published form: it has no text, or does not say why it ended")
        return text, why, _count(reply, "completion_tokens")

    def _echoed(self, reply: Any, text: str) -> list[tuple[str, float | None]] | _Refused:
        """(token, log-probability in nats) of the tokens that spell ``text``, which the reply begins with. A server may put a begin token
        before it, which is left out; else the text's first token has no number. ``_Again`` where the reply is in another form, Unanswered
        where it has no log-probabilities at all: asking again would change nothing."""
        choices = getattr(reply, "choices", None)
        choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
        told = getattr(choice, "logprobs", None)
        if told is None and isinstance(getattr(choice, "text", None), str):
            do = "Leave out logprobs=true; what needs log-probabilities cannot be asked of this server."
            raise Unanswered(self.config.url, "no log-probabilities of a text came", "the server answered without them", do=do)
        tokens, values = getattr(told, "tokens", None), getattr(told, "token_logprobs", None)
        if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
            raise _Again("the reply holds no tokens with their log-probabilities")
        pairs = list(zip(tokens, values, strict=True))
        if pairs and pairs[0] == ("", None):  # a begin token that is not spelt
            return _spelling(pairs[1:], text, begun=True)
        try:
            return _spelling(pairs, text)
        except _Again:
            # Only what does not spell the text is read this way: of a text that repeats one token both readings would fit.
            if pairs and pairs[0][1] is None:
                with suppress(_Again):
                    return _spelling(pairs[1:], text, begun=True)
            if any(isinstance(token, str) and "\ufffd" in token for token in tokens):
                found = "a character is split over several tokens, which the server does not spell"
                return _Refused(Unanswered(self.config.url, "the numbers of a text cannot be placed", found))
            raise

    def _owed(self, reply: Any, most: float) -> float:
        tokens_in, tokens_out = _count(reply, "prompt_tokens"), _count(reply, "completion_tokens")
        return most if tokens_in is None or tokens_out is None else self._purse.price(tokens_in, tokens_out)

    def _keyless(self, reply: Any) -> None:
        key = os.environ.get(self.config.key_variable, "")
        if len(key) >= 8 and key in repr(reply):
            raise _Again("the reply repeats the key")

    def _clean(self, words: str) -> str:
        """``words`` of a server in one line, without the key."""
        key = os.environ.get(self.config.key_variable, "")
        line = " ".join((words.replace(key, "***") if key else words).split())
        return line[:200].rstrip(". ")


def _client(config: EndpointConfig, key: str) -> Any:
    try:
        import openai  # takes a second, and only endpoints need it
    except ModuleNotFoundError:
        raise MissingExtra("openai", "endpoint", "A served model") from None
    client = openai.OpenAI(api_key=key or "none", base_url=config.url, timeout=config.timeout, max_retries=0)
    # The client takes more from the environment by itself, meant for another server than this may be.
    client.organization = client.project = client.admin_api_key = client.webhook_secret = None
    client._custom_headers = {}
    return client


def _told(error: Exception) -> tuple[_Again | tuple[int, str], bool]:
    """What an error of the client means: worth another try, or (status, words) of one that will not pass; and whether the request may
    have been paid for."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return _Again("the reply did not come in time"), True
    if isinstance(error, openai.APIConnectionError):
        return _Again("the connection failed, or the reply was cut off"), True
    if isinstance(error, openai.APIStatusError):
        again = error.status_code in (408, 409, 429) or error.status_code >= 500
        wait = _retry_after(error.response.headers.get("retry-after"))
        words = _words(error.body) or str(error.message)
        return (_Again(f"status {error.status_code}: {words}", wait) if again else (error.status_code, words)), False
    if isinstance(error, ValueError | openai.APIError) or type(error).__module__.startswith("httpx"):
        return _Again("the reply is not in the published form, or was cut off"), True
    raise error


def _words(body: object) -> str:
    """What an error's body says: servers put it under ``message`` or ``detail``, or give it as it is."""
    if isinstance(body, dict):
        body = next((body[name] for name in ("message", "detail") if body.get(name)), body)
    return str(body) if body else ""


def _retry_after(given: str | None) -> float:
    try:
        wait = float(given or 0)
    except ValueError:
        return 0.0
    return wait if math.isfinite(wait) and wait > 0 else 0.0


def _count(reply: Any, name: str) -> int | None:
    value = getattr(getattr(reply, "usage", None), name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _spelling(told: Sequence[tuple[Any, Any]], text: str, *, begun: bool = False) -> list[tuple[str, float | None]]:
    """The leading tokens that spell ``text``, with their log-probabilities in nats. The first has none unless a begin token stood before
    it (``begun``), whatever the server says. ``_Again`` where the text is not spelt, and where another token has no number."""
    out: list[tuple[str, float | None]] = []
    length = 0
    for number, (token, value) in enumerate(told):
        if length >= len(text):
            break
        given = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        alone = number == 0 and not begun
        if not isinstance(token, str) or not ((given <= 1e-6 and math.isfinite(given)) or (alone and value is None)):
            raise _Again("a token of the reply has no log-probability")
        out.append((token, None if alone else given))
        length += len(token)
    if "".join(token for token, _ in out) != text:
        raise _Again("the tokens of the reply do not spell the text that was sent")
    return out


def load(config: EndpointConfig | str, **options: Any) -> Endpoint:
    """The model of a config, or of ``MODEL@URL`` with the config's other fields as ``options``. Nothing is sent yet.

    Raises BadValue (also for a URL with a user, password or query, which is not repeated), UnknownName, MissingExtra.
    """
    if isinstance(config, EndpointConfig):
        return Endpoint(config)
    model, sign, url = config.partition("@http")
    if not sign or not model:
        raise BadValue("the endpoint", "another text", "MODEL@URL, where the URL begins with http:// or https://")
    if wrong := _wrong_url(f"http{url}"):
        raise BadValue("the endpoint's url", "another", wrong)
    return Endpoint(EndpointConfig.parse({"model": model, "url": f"http{url}", **options}, what=f"endpoint:{model}"))
