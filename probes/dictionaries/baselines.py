"""What a dictionary's scores stand beside: directions nobody learned.

``random``: directions drawn at random, each read by the same direction, as many active as the dictionary had; nothing is fitted but the
normalisation. ``frozen``: trained like the dictionary, but the decoder stays as it was drawn (``TrainingSpec.frozen``). A score that a
frozen decoder reaches too says nothing about the directions (Korznikov et al. 2026, arXiv:2602.14111).
"""

from __future__ import annotations

import torch

from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.spec import DictionarySpec


def random_twin(dictionary: Dictionary, active: float, seed: int) -> Dictionary:
    """A dictionary of random directions of the same shape and normalisation, ``active`` features a row (rounded)."""
    spec = dictionary.spec
    k = min(max(1, round(active)), spec.d_sae)
    twin = Dictionary(
        DictionarySpec(kind="topk", d_in=spec.d_in, d_sae=spec.d_sae, k=k, d_out=spec.d_out), seed=seed, origin=dictionary.origin
    )
    twin.to(dictionary.decoder.device, dictionary.decoder.dtype)
    with torch.no_grad():
        if spec.transcoder:
            twin.normalise(dictionary.input, dictionary.output)
        else:
            twin.normalise(dictionary.input)
    return twin
