"""A published tokenizer (a folder with ``tokenizer.json``), read so that no text can produce a control token.

The published engine finds control tokens spelt out in a text and reads them as such. Here the engine that reads text is built without
them: ``[SEP]`` in a text becomes ordinary pieces, and where a vocabulary could still produce one, the text is refused. Control tokens
are put around a text by ``framed`` alone.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from workbench.core.errors import BadValue, CorruptFile, MissingFile
from workbench.core.spec import canonical_json
from workbench.data.encoding import BYTE_OF, FORMAT, Span, json_object, stored, utf8

ROLES = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
_FILE, _SETTINGS = "tokenizer.json", ("special_tokens_map.json", "tokenizer_config.json")
_SAMPLES = (("a", "b"), ("the", "of"), ("1", "2"), (".", ","))
Frame = tuple[tuple[int, int | None, int], ...]  # (id, None, sentence type) of a control token, (0, number, type) of a text


class PretrainedTokenizer:
    """``engine`` is the published description; ``roles`` say which ids begin, end, pad, separate, mask …

    ``encode`` adds nothing; ``framed`` adds what the published template puts around a text, or a pair.
    """

    def __init__(self, engine: Mapping[str, Any], roles: Mapping[str, int]) -> None:
        self._source = {**engine, "truncation": None, "padding": None}
        self.roles = dict(roles)
        vocabulary = _vocabulary(self._source)
        added = {int(token["id"]): token for token in self._source.get("added_tokens") or []}
        self._pieces = {i: piece for piece, i in vocabulary.items()} | {i: str(token["content"]) for i, token in added.items()}
        if odd := sorted(set(roles) - set(ROLES)) or sorted(role for role, i in roles.items() if i not in self._pieces):
            raise BadValue("roles", odd[0], f"one of {', '.join(ROLES)}, with the id of a token there is")
        unknown = _unknown(self._source, vocabulary)  # a text may well hold what is unknown
        self._control = ({i for i, token in added.items() if token.get("special")} | set(self.roles.values())) - {unknown}
        self._engine = _engine(_without(self._source, self._control, added))
        letters = [piece for piece in vocabulary if len(piece) == 1 and piece.isalnum()][:2]
        samples = [*_SAMPLES, *([(letters[0], letters[1])] if len(letters) == 2 else [])]
        self._single, self._pair = _frames(_engine(self._source), samples)
        self._by_bytes = '"ByteLevel"' in json.dumps(self._source.get("decoder"))

    @classmethod
    def from_folder(cls, folder: Path | str) -> PretrainedTokenizer:
        """The tokenizer of a published ``folder``. Raises MissingFile and CorruptFile."""
        folder = Path(folder)
        if not (folder / _FILE).is_file():
            raise MissingFile(folder / _FILE, "published tokenizer")
        engine = json_object((folder / _FILE).read_text(encoding="utf-8"), folder / _FILE)
        ids = {**_vocabulary(engine), **{str(token["content"]): int(token["id"]) for token in engine.get("added_tokens") or []}}
        roles: dict[str, int] = {}
        for path in (folder / name for name in _SETTINGS if (folder / name).is_file()):
            settings = json_object(path.read_text(encoding="utf-8"), path)
            for role in ROLES:
                given = settings.get(f"{role}_token")
                word = given.get("content") if isinstance(given, dict) else given
                if isinstance(word, str) and word in ids:
                    roles[role] = ids[word]
        return cls(engine, roles)

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return max(self._pieces) + 1

    @property
    def bos_id(self) -> int | None:
        return self.roles.get("bos")

    @property
    def eos_id(self) -> int | None:
        return self.roles.get("eos")

    @property
    def pad_id(self) -> int | None:
        return self.roles.get("pad")

    @property
    def mask_id(self) -> int | None:
        return self.roles.get("mask")

    @property
    def control_ids(self) -> tuple[int, ...]:
        """Every id that no user text becomes."""
        return tuple(sorted(self._control))

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        """The ids of ``text`` alone, after the begin token if ``bos``. Raises BadValue for a lone surrogate, for a text that the
        vocabulary can only read as a control token or not at all, and for ``bos`` where there is none."""
        if bos and self.bos_id is None:
            raise BadValue("bos", bos, "false, since this tokenizer has no begin token (`framed` puts control tokens around a text)")
        return ([self.bos_id] if bos and self.bos_id is not None else []) + self._read(text).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``[encode(text) for text in texts]``, in parallel."""
        for text in texts:
            utf8(text)
        try:
            found = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception:  # the library raises nothing narrower, nor says which text it was
            return [self.encode(text) for text in texts]
        return [self._plain(text, one.ids) for text, one in zip(texts, found, strict=True)]

    def offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The ids of ``text`` and, for each, the characters ``(start, end)`` it covers. A token holding part of a character covers all
        of it; characters that the published normalisation drops are covered by none."""
        found = self._read(text)
        return found.ids, [(int(start), int(end)) for start, end in found.offsets]

    def framed(self, ids: Sequence[int], second: Sequence[int] | None = None) -> tuple[list[int], list[int]]:
        """One text's ids (or two texts') with the control tokens of the published template, and each token's sentence type."""
        parts = [list(ids)] if second is None else [list(ids), list(second)]
        out, types = [], []
        for control, number, kind in self._single if second is None else self._pair:
            here = [control] if number is None else parts[number]
            out += here
            types += [kind] * len(here)
        return out, types

    def decode(self, ids: Sequence[int]) -> str:
        """The text as the published decoder writes it, control tokens left out. What normalisation dropped (case, accents) stays
        dropped, and an unknown piece shows as the token for it."""
        return self._engine.decode([self._checked(i) for i in ids if i not in self._control], skip_special_tokens=False)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each id stands for, in the vocabulary's spelling (``##ing`` continues a word). Of byte-level vocabularies the text, with
        a character split over several tokens shown at its last."""
        words = [self._pieces[self._checked(i)] for i in ids]
        if not self._by_bytes:
            return words
        out: list[str] = []
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for word in words:
            if all(letter in BYTE_OF for letter in word):
                out.append(decoder.decode(bytes(BYTE_OF[letter] for letter in word)))
            else:  # an added token, which is spelt as text
                out.append(decoder.decode(b"", final=True) + word)
                decoder.reset()
        rest = decoder.decode(b"", final=True)
        return [*out[:-1], out[-1] + rest] if rest and out else out

    def digest(self) -> str:
        """sha256 (hex) of ``to_json()``."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Everything needed to make this tokenizer again, as canonical JSON."""
        return canonical_json({"type": "pretrained", "format": FORMAT, "engine": self._source, "roles": self.roles})

    @classmethod
    def from_json(cls, text: str) -> PretrainedTokenizer:
        """The inverse of ``to_json``. Raises CorruptFile for anything else."""
        part = stored(text, "pretrained", {"engine", "roles"})
        return cls(part["engine"], part["roles"])

    def _read(self, text: str) -> tokenizers.Encoding:
        utf8(text)
        try:
            found = self._engine.encode(text, add_special_tokens=False)
        except Exception:  # the library raises nothing narrower
            raise BadValue("text", text[:40], "of what is in this vocabulary, which has no token for the unknown") from None
        self._plain(text, found.ids)
        return found

    def _plain(self, text: str, ids: list[int]) -> list[int]:
        if odd := sorted(self._control.intersection(ids)):
            raise BadValue("text", text[:40], f"without what this vocabulary can only read as the control token {self._pieces[odd[0]]!r}")
        return ids

    def _checked(self, i: int) -> int:
        if i not in self._pieces:
            raise BadValue("token id", int(i), f"within 0 to {self.vocab_size - 1}, and one this tokenizer has")
        return i


# --- the published description ------------------------------------------------------------------------------


def _engine(description: Mapping[str, Any]) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # the library raises nothing narrower
        raise CorruptFile("tokenizer", "a description that its library reads", f"it says: {error}") from None


def _vocabulary(description: Mapping[str, Any]) -> dict[str, int]:
    """Piece to id, without the added tokens."""
    vocabulary = (description.get("model") or {}).get("vocab")
    if isinstance(vocabulary, list):  # a unigram model lists (piece, score)
        return {str(piece): i for i, (piece, _) in enumerate(vocabulary)}
    if not isinstance(vocabulary, dict):
        raise CorruptFile("tokenizer", "the description of a model with a vocabulary", f"its vocabulary is {type(vocabulary).__name__}")
    return {str(piece): int(i) for piece, i in vocabulary.items()}


def _unknown(description: Mapping[str, Any], vocabulary: Mapping[str, int]) -> int | None:
    model = description["model"]
    return model["unk_id"] if model.get("unk_id") is not None else vocabulary.get(model.get("unk_token") or "")


def _without(description: Mapping[str, Any], control: set[int], added: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The description of an engine that does not know the control tokens: neither beside its vocabulary nor, where pieces are looked up
    as they are, in it. (Byte pairs are reached through merges, which make none.)"""
    model = dict(description["model"])
    hidden = {piece: f"\ue000control {i}\ue000" for piece, i in _vocabulary(description).items() if i in control}
    if isinstance(model["vocab"], list):
        model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in model["vocab"]]
    elif "merges" not in model:
        model["vocab"] = {hidden.get(piece, piece): i for piece, i in model["vocab"].items()}
    kept = [token for i, token in added.items() if i not in control and not token.get("special")]
    return {**description, "model": model, "added_tokens": kept, "post_processor": None}


def _frames(whole: tokenizers.Tokenizer, samples: Sequence[tuple[str, str]]) -> tuple[Frame, Frame]:
    """What the published template puts around one text, and around two: seen in what it does to a sample."""
    for one, two in samples:
        try:
            single, pair = whole.encode(one), whole.encode(one, two)
        except Exception:  # a vocabulary without these letters, or a token for the unknown; the library raises nothing narrower
            continue
        if 0 in single.sequence_ids and {0, 1} <= set(pair.sequence_ids):
            return _frame(single), _frame(pair)
    raise CorruptFile("tokenizer", "one whose template shows on a sample", f"it reads none of {tuple(samples)}")


def _frame(encoding: tokenizers.Encoding) -> Frame:
    out: list[tuple[int, int | None, int]] = []
    for i, number, kind in zip(encoding.ids, encoding.sequence_ids, encoding.type_ids, strict=True):
        part = (i if number is None else 0, number, kind)
        if number is None or not out or out[-1] != part:
            out.append(part)
    return tuple(out)
