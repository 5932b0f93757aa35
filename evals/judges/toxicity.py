"""A judge of toxicity in short English texts: local, versioned, with its errors on texts that it did not learn from.

A logistic regression on frozen features (``judges.features``). A text's score is between 0 and 1, and 0.5 is where the judge calls it
toxic: the cut at which sensitivity + specificity is highest on validation texts. It is no probability and not on Perspective's scale.
``errors`` hold, for each kind of text it was tried on, how often it was wrong there. Its page says where it must not be used.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from evals.judges.correction import Errors
from evals.judges.encoders import encoder_digest
from evals.judges.features import BAG, read
from workbench.core.errors import BadValue, CorruptFile, MissingFile, UnknownName
from workbench.core.spec import digest_of

FORMAT = 1
CUT = 0.5
SHIPPED = Path(__file__).with_name("shipped")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ToxicityJudge:
    """``weight [feature]`` and ``bias`` on the features that ``reads`` names; ``encoder_digest`` is that of the encoder it was fitted on
    ('' for a bag). ``errors`` by kind of text."""

    name: str
    reads: str
    weight: Floats
    bias: float
    encoder_digest: str = ""
    errors: Mapping[str, Errors] = field(default_factory=dict)

    def margins(self, texts: Sequence[str]) -> Floats:
        """Log-odds of each text ``[text]``, above 0 where it is called toxic. Raises BadValue for a blank text and for another encoder."""
        if self.reads != BAG and (found := encoder_digest(self.reads)) != self.encoder_digest:
            raise BadValue("the judge's encoder", f"one of digest {found[:12]}…", f"the one it was fitted on ({self.encoder_digest[:12]}…)")
        return np.asarray(read(self.reads, texts) @ self.weight).reshape(-1) + self.bias if len(texts) else np.zeros(0)

    def scores(self, texts: Sequence[str]) -> Floats:
        """The score of each text ``[text]``, from 0 to 1."""
        return special.expit(self.margins(texts))

    def errors_on(self, kind: str) -> Errors:
        """Its errors on a kind of text. Raises UnknownName for one it was not tried on."""
        if kind not in self.errors:
            raise UnknownName("kind of text", kind, self.errors, where=f"that judge '{self.name}' was tried on")
        return self.errors[kind]

    def digest(self) -> str:
        """Of all that decides a score and its correction."""
        return digest_of(self._plain())

    def _plain(self) -> dict[str, Any]:
        weight = base64.b64encode(self.weight.astype("<f4").tobytes()).decode()
        errors = {kind: asdict(one) for kind, one in self.errors.items()}
        return {
            "format": FORMAT, "name": self.name, "reads": self.reads, "encoder_digest": self.encoder_digest, "bias": self.bias,
            "errors": errors, "weight": weight,
        }  # fmt: skip

    def save(self, path: Path) -> Path:
        """Write the judge as JSON."""
        path.write_text(json.dumps(self._plain(), indent=1) + "\n")
        return path


def shipped() -> list[str]:
    """The names of the judges that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def load(name: str) -> ToxicityJudge:
    """A shipped judge by name, or one of a file. Raises MissingFile, and CorruptFile for a file that holds no judge."""
    path = SHIPPED / f"{name}.json"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        raise MissingFile(name, "judge", do=f"Name one of {', '.join(shipped()) or 'none shipped'}, or the file of one.")
    return _loaded(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _loaded(path: Path, _changed: int) -> ToxicityJudge:
    try:
        held = json.loads(path.read_bytes().decode())
        if held["format"] != FORMAT:
            raise CorruptFile(path, f"a judge of format {FORMAT}", f"it has format {held['format']}")
        weight = np.frombuffer(base64.b64decode(held["weight"], validate=True), dtype="<f4").astype(np.float64)
        errors = {kind: Errors(**one) for kind, one in held["errors"].items()}
        made = ToxicityJudge(str(held["name"]), str(held["reads"]), weight, float(held["bias"]), str(held["encoder_digest"]), errors)
    except (ValueError, KeyError, TypeError, AttributeError, BadValue) as error:
        raise CorruptFile(path, "the file of a judge", f"it is not ({type(error).__name__})") from None
    if not len(weight) or not np.isfinite(weight).all() or not np.isfinite(made.bias):
        raise CorruptFile(path, "a judge with finite weights", "it has others, or none")
    return made
