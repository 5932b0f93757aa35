"""A tokenizer of parts of words, learned from texts, without case and framed as an encoder expects it: ``[CLS] … [SEP]``."""

from __future__ import annotations

import json
from collections.abc import Iterable

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from workbench.core.errors import BadValue
from workbench.data.encoding import BYTE_OF
from workbench.data.pretrained import PretrainedTokenizer
from workbench.data.whole_words import CONTROL, template


def subwords(texts: Iterable[str], vocabulary: int) -> PretrainedTokenizer:
    """Byte pairs of lower-cased ``texts`` (Sennrich et al., ACL 2016), merged until there are ``vocabulary`` tokens, the control tokens
    included, or no pair occurs twice. Every text can be read: what was never seen is bytes. The same texts give the same tokenizer.

    Raises BadValue below 261 (256 bytes and the control tokens).
    """
    least = len(BYTE_OF) + len(CONTROL)
    if vocabulary < least:
        raise BadValue("the vocabulary", vocabulary, f"at least {least}")
    engine = tokenizers.Tokenizer(models.BPE())
    engine.normalizer = normalizers.Lowercase()
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)  # a word is the same at the start of a text
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, show_progress=False, special_tokens=[*CONTROL.values()], initial_alphabet=sorted(BYTE_OF)
    )
    engine.train_from_iterator(texts, trainer)
    learned = json.loads(engine.to_str())
    ids = {word: int(learned["model"]["vocab"][word]) for word in CONTROL.values()}
    return PretrainedTokenizer(
        {**learned, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, **template(ids)},
        {role: ids[word] for role, word in CONTROL.items()},
    )
