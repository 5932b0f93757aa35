"""Cached, batched decoding against one full forward a token."""

from __future__ import annotations

import pytest
import torch

from tests.engine.models import LETTERS, Wrapped, lettered, wordy
from tests.reference.scoring import greedy
from workbench.core.errors import BadValue
from workbench.core.measure import Generate
from workbench.core.protocol import Resume
from workbench.data.chat import ChatTemplate, Message, prompt_ids
from workbench.data.text import CharTokenizer
from workbench.engine.generate import generate, generations
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.lora import LoRASpec, attach

PROMPTS = ["a", "bc", "de", "fgh", "a", "vut", "klmn", "w"]


def text_of(ids) -> str:
    return "".join(LETTERS[i] for i in ids)


def expected(model, prompt: str, most: int) -> str:
    return text_of(greedy(model, [LETTERS.index(c) for c in prompt], most, None))


def test_ragged_prompts_equal_uncached_decoding():
    model = lettered(n_ctx=32)
    assert generate(model, PROMPTS, most=12) == [expected(model, p, 12) for p in PROMPTS]


def test_without_a_cache_it_is_the_same():
    model = lettered()
    assert generate(Wrapped(model, "cache"), PROMPTS, most=6) == generate(model, PROMPTS, most=6)


def test_with_a_cache_each_token_is_read_once():
    watched = Wrapped(lettered())
    generate(watched, ["abc"], most=5)
    assert [shape for shape, _ in watched.runs] == [(1, 3), (1, 1), (1, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("budget", [1, 20, 8192])
def test_the_batch_does_not_matter(budget):
    model = lettered()
    requests = [Generate(p, 6) for p in PROMPTS]
    found = dict(generations(model, requests, token_budget=budget, temperature=1.0, seed=3))
    assert [found[i] for i in range(len(PROMPTS))] == generate(model, PROMPTS, most=6, temperature=1.0, seed=3)


def test_until_cuts_before_the_first_stop():
    model = lettered(n_ctx=32)
    whole = expected(model, "abc", 12)
    stop = whole[4:6]
    assert generate(model, ["abc"], most=12, until=[stop, "?"]) == [whole[: whole.index(stop)]]


def test_eos_ends_a_text_and_is_not_part_of_it(monkeypatch):
    model = wordy()
    assert model.tokenizer is not None
    eos = model.tokenizer.eos_id
    prompt = [model.tokenizer.bos_id, *model.tokenizer.encode("the cat")]
    free = greedy(model, prompt, 8, None)
    assert generate(model, ["the cat"], most=8) == [model.tokenizer.decode(greedy(model, prompt, 8, eos))]
    row = next(k for k, token in enumerate(free) if token not in free[:k])
    monkeypatch.setattr(type(model.tokenizer), "eos_id", free[row])
    assert generate(model, ["the cat"], most=8) == [model.tokenizer.decode(free[:row])]


def test_sampling_follows_the_probabilities():
    model = lettered()
    found = generate(model, ["abc"] * 4000, most=1, temperature=1.5, seed=0)
    trace = model.run(torch.tensor([[0, 1, 2]]))
    assert trace.logits is not None
    shares = (trace.logits[0, -1].double() / 1.5).softmax(-1)
    counts = torch.tensor([found.count(c) for c in LETTERS], dtype=torch.float64)
    z = (counts - 4000 * shares) / (4000 * shares * (1 - shares)).sqrt().clamp(min=1)
    assert float(z.abs().max()) < 4.5
    assert generate(model, ["abc"] * 50, most=1, temperature=1.5, seed=0) == found[:50]
    assert generate(model, ["abc"] * 50, most=1, temperature=1.5, seed=1) != found[:50]


def test_what_does_not_fit_is_refused():
    model = lettered(n_ctx=8)
    assert len(generate(model, ["abcd"], most=5)[0]) == 5  # reads 8 positions, writes a ninth token
    with pytest.raises(BadValue, match="at most 8 tokens, the model's context"):
        generate(model, ["abcd"], most=6)
    refused = []
    found = dict(generations(model, [Generate("abcd", 6), Generate("a", 2)], refuse=lambda i, e: refused.append(i)))
    assert refused == [0]
    assert list(found) == [1]


@pytest.mark.parametrize(
    ("prompts", "options", "words"),
    [([""], {}, "no BOS token"), (["a"], {"most": 0}, "at least 1"), (["a"], {"temperature": -1.0}, "greedy")],
)
def test_bad_requests(prompts, options, words):
    with pytest.raises(BadValue, match=words):
        generate(lettered(), prompts, **options)


# --- rows that come and go ------------------------------------------------------------------------------------


def test_rows_come_and_go_and_every_text_is_its_own():
    model = lettered(n_ctx=48)
    prompts = [LETTERS[i % 23] * (1 + i % 7) + LETTERS[i * 5 % 23] for i in range(90)]
    requests = [Generate(p, 1 + i % 19) for i, p in enumerate(prompts)]
    found = dict(generations(model, requests, token_budget=256))
    assert [found[i] for i in range(0, 90, 9)] == [expected(model, prompts[i], requests[i].most) for i in range(0, 90, 9)]
    assert sorted(found) == list(range(90))


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_a_text_is_the_same_in_any_batch_with_its_own_seed(temperature):
    model = lettered(n_ctx=96)
    requests = [Generate(LETTERS[i % 23] * (1 + i % 11), 5 + i * 3 % 40) for i in range(24)]
    whole = dict(generations(model, requests, temperature=temperature, seeds=list(range(100, 124))))
    for chosen in ([5], [23, 0, 11, 7], list(range(3, 20))):
        again = dict(generations(model, [requests[i] for i in chosen], temperature=temperature, seeds=[100 + i for i in chosen]))
        assert [again[k] for k in range(len(chosen))] == [whole[i] for i in chosen]
    other = dict(generations(model, requests, temperature=temperature, seeds=list(range(24))))
    assert (other == whole) == (temperature == 0.0)


def test_a_step_has_the_same_bits_whatever_rows_stand_beside_it(monkeypatch):
    """Texts agree also where bits do not, so the logits behind them are compared."""
    model, seen = lettered(n_ctx=96), {}

    def watched(logits, rows, temperature, seed):
        for row, values in zip(rows, logits, strict=True):
            seen[row.seed, len(row.made)] = values.clone()
        return logits.argmax(-1).tolist()

    monkeypatch.setattr("workbench.engine.generate._choose", watched)
    requests = [Generate(LETTERS[i % 23] * (1 + i % 11), 20 + i * 3 % 60) for i in range(12)]
    dict(generations(model, requests))
    whole = dict(seen)
    seen.clear()
    dict(generations(model, [requests[4]], seeds=[4]))
    assert len(seen) == requests[4].most
    assert all(torch.equal(values, whole[at]) for at, values in seen.items())


def test_what_prompts_share_is_read_once():
    model = lettered(n_ctx=48)
    stem = "abcdefghijklmnopqrst"
    read = []

    class Counted(Wrapped):
        resumes = model.resumes

        def run(self, batch, **options):
            read.append(int((options["resume"].parents >= 0).sum()) if options["resume"].parents is not None else 0)
            return self.model.run(batch, **options)

    generate(Counted(model), [stem + letter for letter in LETTERS], most=2)
    assert read[0] == len(stem) - 1 + 23
    assert sum(read[1:]) == 0


def test_a_late_stop_is_seen_without_decoding_all():
    model = lettered(n_ctx=64)
    whole = expected(model, "abc", 40)
    stop = whole[31:34]
    assert generate(model, ["abc"], most=40, until=[stop]) == [whole[: whole.index(stop)]]


def test_a_chat_template_with_its_system_prompt():
    model = wordy(n_ctx=96)
    assert model.tokenizer is not None
    template = ChatTemplate(prompt="the cat")
    ids = prompt_ids([Message("system", "the cat"), Message("user", "mat")], template, model.tokenizer)
    found = dict(generations(model, [Generate("mat", 4, chat=template), Generate("mat", 4)]))
    assert found[0] == model.tokenizer.decode(greedy(model, ids, 4, model.tokenizer.eos_id))
    with pytest.raises(BadValue, match="mark of the template"):
        dict(generations(model, [Generate("<|user|>", 4, chat=template)]))


def test_seeds_are_one_a_prompt():
    with pytest.raises(BadValue, match="one for each of the 1 prompts"):
        dict(generations(lettered(), [Generate("a", 1)], seeds=[1, 2]))


@pytest.mark.parametrize("window", [0, 3])
def test_a_step_of_rows_of_different_lengths_equals_each_row_alone(window):
    config = GPTConfig.parse({"n_layers": 2, "d_model": 16, "n_heads": 4, "n_kv_heads": 2, "d_vocab": 23, "economy": {"window": window}})
    model = GPT(config, seed=3).eval()
    rows = [[i % 23 for i in range(length)] for length in (3, 30, 1, 17)]
    pasts = [model.run(torch.tensor([row]), cache=True).past for row in rows]
    seen = []
    for capture in ((), ("blocks.1.attn.hook_pattern",)):
        room = pasts[0].room(len(rows), 31)
        for row, (ids, past) in enumerate(zip(rows, pasts, strict=True)):
            room.take(row, past, list(range(len(ids))))
        seen.append(model.run(torch.tensor([[5]] * 4), resume=Resume(past=room.step()), capture=capture).logits)
    for row, ids in enumerate(rows):
        whole = model.run(torch.tensor([[*ids, 5]]), logits="last").logits
        assert whole is not None
        assert all(float((logits[row] - whole[0]).abs().max()) < 1e-5 for logits in seen)
    with pytest.raises(BadValue, match="alone with one token a row"):
        model.run(torch.tensor([[5, 6]] * 4), resume=Resume(past=pasts[0].room(4, 8).step()))
    with pytest.raises(BadValue, match="rows of resume.past"):
        model.run(torch.tensor([[5]] * 3), resume=Resume(past=pasts[0].room(4, 8).step()))


STEPPED = {
    "rotary, grouped": {"n_kv_heads": 2},
    "learned, factorised": {"positions": "learned", "act": "gelu_tanh", "tied": True, "economy": {"d_embed": 6}},
    "after, shared": {"norm_placement": "post", "bias": False, "act": "swiglu", "economy": {"groups": 1}},
    "no norm, no MLP": {"norm_placement": "none", "act": "none"},
    "window": {"norm": "rms", "economy": {"window": 3}},
}


def shaped(**options) -> GPT:
    config = {"n_layers": 2, "d_model": 16, "n_heads": 4, "d_vocab": 23, "n_ctx": 64, "tied": False} | options
    model = GPT(GPTConfig.parse(config), CharTokenizer(LETTERS), seed=5).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3 if parameter.ndim == 2 else 1)
    return model


@pytest.mark.parametrize("name", STEPPED)
def test_steps_are_what_runs_of_a_token_a_row_are(name):
    model, rows = shaped(**STEPPED[name]), [[i % 23 for i in range(length)] for length in (3, 30, 1, 17)]
    pasts = [model.run(torch.tensor([row]), cache=True).past for row in rows]
    room, twin = pasts[0].room(4, 40), pasts[0].room(4, 40)
    for held in (room, twin):
        for row, past in enumerate(pasts):
            held.take(row, past, list(range(len(rows[row]))))
    steps = model.steps()
    assert steps is not None
    for step in range(3):
        ran = model.run(torch.tensor([[step + 5]] * 4), resume=Resume(past=twin.step())).logits
        assert ran is not None
        assert float((steps([step + 5] * 4, room) - ran[:, 0]).abs().max()) < 1e-5
        room.lengths, twin.lengths = ([length + 1 for length in held.lengths] for held in (room, twin))
    texts = ["abcdefghij", "k", "lmn"]
    assert generate(model, texts, most=9) == [expected(model, text, 9) for text in texts]


def test_a_model_that_does_more_than_its_class_says_has_no_steps():
    hooked, adapted, replaced = lettered(), lettered(), lettered()
    hooked.stack.layers()[1].register_forward_hook(lambda *_: None)
    attn = adapted.stack.layers()[0].attn
    attn.add_module("q", torch.nn.Sequential(attn.q))
    replaced.run = lambda *given, **options: GPT.run(replaced, *given, **options)

    class Other(GPT):
        def _pass(self, batch, ask):
            return super()._pass(batch, ask)

    other = Other(lettered().config, CharTokenizer(LETTERS)).eval()
    assert [model.steps() for model in (hooked, adapted, replaced, other)] == [None] * 4
    assert generate(replaced, ["abc"], most=5) == generate(lettered(), ["abc"], most=5)


SOME = ["a", "vut", "klmn"]


class Around(torch.nn.Module):
    """A layer in a wrapper, as a compiled one is; what it adds to the stream is ``factor`` times as much."""

    def __init__(self, block, factor: float = 1.0) -> None:
        super().__init__()
        self.block, self.factor = block, factor

    def forward(self, x, *given, **options):
        out, left = self.block(x, *given, **options)
        return (x + self.factor * (out - x) if out.shape == x.shape else out), left


def louder(call):
    """``call`` with its first output three times as large."""

    def changed(*given, **options):
        out = call(*given, **options)
        return (3 * out[0], *out[1:]) if isinstance(out, tuple) else 3 * out

    return changed


def wrapped(*layers: int, factor: float = 1.0) -> GPT:
    model = lettered(n_ctx=32)
    for layer in layers:
        model.stack.blocks[layer] = Around(model.stack.blocks[layer], factor)
    return model


def with_forward(name: str, method: str = "forward") -> GPT:
    """A model of which one part has a method of its own, set on that part alone."""
    model = lettered(n_ctx=32)
    part = model.get_submodule(name)
    vars(part)[method] = louder(getattr(part, method))
    return model


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)])
def test_wrapped_layers_are_run_where_they_stand(layers):
    same, other = wrapped(*layers), wrapped(*layers, factor=0.2)
    assert [same.steps(), other.steps()] == [None, None]
    assert torch.equal(same.weight("blocks.0.attn.W_Q"), lettered(n_ctx=32).weight("blocks.0.attn.W_Q"))
    plain = generate(lettered(n_ctx=32), SOME, most=8)
    assert generate(same, SOME, most=8) == plain
    assert generate(other, SOME, most=8) == [expected(other, prompt, 8) for prompt in SOME] != plain


@pytest.mark.parametrize(
    ("part", "method"),
    [("stack", "forward"), ("stack.blocks.1", "forward"), ("stack.blocks.0.attn", "forward"), ("stack.blocks.0.attn", "_projected"),
     ("stack.blocks.0.mlp", "forward"), ("ln_final", "_fused"), ("", "_embedded"), ("", "_read_out")],
)  # fmt: skip
def test_a_method_set_on_one_part_alone_is_heeded(part, method):
    model = with_forward(part, method)
    assert model.steps() is None
    assert generate(model, SOME, most=6) == [expected(model, prompt, 6) for prompt in SOME]


@pytest.mark.parametrize("method", ["_given", "_embedded", "_setting", "_turns", "_read_out"])
def test_a_subclass_with_a_part_of_the_pass_of_its_own_has_no_steps(method):
    def own(self, *given, **options):
        out = getattr(GPT, method)(self, *given, **options)
        return 0.3 * out if method == "_embedded" else out

    plain = lettered(n_ctx=32)
    model = type("Own", (GPT,), {method: own})(plain.config, plain.tokenizer).eval()
    model.load_state_dict(plain.state_dict())
    assert model.steps() is None
    assert type("Same", (GPT,), {})(plain.config, plain.tokenizer).steps() is not None
    assert generate(model, SOME, most=6) == [expected(model, prompt, 6) for prompt in SOME]


def test_parts_of_another_type_are_run():
    models = [lettered() for _ in range(4)]
    for model, name in zip(models, ("stack", "stack.blocks.1", "stack.blocks.0.attn", "stack.blocks.0.ln1"), strict=True):
        part = model.get_submodule(name)
        part.__class__ = type("Other", (type(part),), {})
    assert [model.steps() for model in models] == [None] * 4


def test_weights_are_arranged_for_steps_at_the_first_step_alone(monkeypatch):
    made, steps = [], GPT.steps
    monkeypatch.setattr(GPT, "steps", lambda self: made.append(1) or steps(self))
    model = lettered(n_ctx=32)
    assert generate(model, SOME, most=1) == [expected(model, prompt, 1) for prompt in SOME]
    assert made == []
    generate(model, SOME, most=5)
    assert made == [1]


def test_a_low_rank_addition_to_what_steps_call_is_in_them():
    """Queries, keys and values are copied, so an addition to one of them is run; one to other maps is called as it stands."""
    for maps, stepped in (("*.attn.W_O", True), ("*.mlp.*", True), ("*.attn.W_Q", False)):
        model = lettered(n_ctx=32)
        attach(model, LoRASpec.parse({"select": [maps]}))
        draw = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = torch.randn(parameter.shape, generator=draw)
        assert (model.steps() is not None) == stepped
        assert generate(model, SOME, most=6) == [expected(model, prompt, 6) for prompt in SOME]


def test_rows_that_are_kept_hold_what_they_held():
    model = lettered(n_ctx=48)
    pasts = [model.run(torch.tensor([[i % 23 for i in range(length)]]), cache=True).past for length in (9, 4, 20)]
    room = pasts[0].room(32, 24)
    for row, past in zip((30, 1, 7), pasts, strict=True):
        room.take(row, past, list(range(past.length)))
    kept = room.kept([1, 30, 7], 16)
    assert kept.lengths == [4, 9, 20] + [0] * 13
    for row, past in enumerate((pasts[1], pasts[0], pasts[2])):
        for mine, theirs in zip(kept.layers, past.layers, strict=True):
            assert all(torch.equal(a[row, : past.length], b[0]) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_room_is_empty_and_lies_as_a_tensor_of_torch_does(dtype):
    past = lettered().to(dtype).run(torch.tensor([[1, 2, 3]]), cache=True).past
    room = past.room(5, 17)
    for mine, theirs in zip(room.layers, past.layers, strict=True):
        for held, like in zip(mine, theirs, strict=True):
            twin = like.new_zeros(5, like.shape[2], 32, like.shape[3]).transpose(1, 2)
            assert (held.dtype, held.shape, held.stride(), held.data_ptr() % 64) == (dtype, twin.shape, twin.stride(), 0)
            assert torch.equal(held, twin)
    assert len({held.data_ptr() for pair in room.layers for held in pair}) == 2 * len(room.layers)
