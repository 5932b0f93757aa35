"""A tokenizer as `transformers` reads it: the files that stand beside a published model's weights."""

from __future__ import annotations

import json
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel

from workbench.core.protocol import Tokenizer
from workbench.data.pretrained import PretrainedTokenizer
from workbench.data.text import CONTROL, BPETokenizer, CharTokenizer

UNKNOWN = "<|unk|>"


def tokenizer_files(tokenizer: Tokenizer, *, begin: bool) -> dict[str, str]:
    """File name to content; empty for a tokenizer of another kind, which has no published form.

    ``begin``: every text begins with the begin token, where there is one, as ours do for a decoder. A published tokenizer keeps its own
    template. A published engine reads a control token spelt out in a text as that token, which ours never does.
    """
    if isinstance(tokenizer, PretrainedTokenizer):
        part = json.loads(tokenizer.to_json())
        return _files(part["engine"], {role: tokenizer.pieces([i])[0] for role, i in tokenizer.roles.items()}, tokenizer.roles)
    if isinstance(tokenizer, BPETokenizer):
        roles = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
        return _files(_byte_pairs(tokenizer, begin), dict(zip(roles, CONTROL, strict=True)), roles)
    if isinstance(tokenizer, CharTokenizer):
        return _files(_characters(tokenizer), {}, {})
    return {}


def _files(engine: dict[str, Any], words: dict[str, str], ids: dict[str, int]) -> dict[str, str]:
    settings = {f"{role}_token": word for role, word in words.items()}
    generation = {f"{role}_token_id": ids[role] for role in ("bos", "eos", "pad") if role in ids}
    parts: dict[str, Any] = {
        "tokenizer.json": engine,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **settings},
    }
    if generation:
        parts["generation_config.json"] = generation
    return {name: json.dumps(part, ensure_ascii=False, indent=2) + "\n" for name, part in parts.items()}


def _byte_pairs(tokenizer: BPETokenizer, begin: bool) -> dict[str, Any]:
    part = json.loads(tokenizer.to_json())
    vocabulary = {token: i for i, token in enumerate(part["tokens"])}
    engine = tokenizers.Tokenizer(BPE(vocab=vocabulary, merges=[(a, b) for a, b in part["merges"]]))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in CONTROL])
    if begin:
        first = CONTROL[0]
        engine.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", pair=f"{first} $A $B", special_tokens=[(first, tokenizer.bos_id)]
        )
    return json.loads(engine.to_str())


def _characters(tokenizer: CharTokenizer) -> dict[str, Any]:
    """One token a character. A character outside the alphabet is an error there too: the unknown token has no id."""
    alphabet = json.loads(tokenizer.to_json())["alphabet"]
    engine = tokenizers.Tokenizer(WordLevel({letter: i for i, letter in enumerate(alphabet)}, unk_token=UNKNOWN))
    engine.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    engine.decoder = decoders.Fuse()
    return json.loads(engine.to_str())
