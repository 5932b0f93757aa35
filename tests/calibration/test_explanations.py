"""Made-up explanations of one position each: what naming it costs, and that the right one stands above the others."""

from __future__ import annotations

import numpy as np
import torch

from probes.explanation_quality import ExplanationQualitySpec
from tests.probes.standin import StandIn
from workbench.calibration.exams.explanations import comprehensiveness
from workbench.calibration.exams.places import tools
from workbench.core.protocol import Inputs

IDS = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 0, 0]])
INPUTS = Inputs(IDS, lengths=torch.tensor([5, 3]), targets=torch.tensor([3, 8]))


def test_naming_a_position_takes_away_what_it_carries() -> None:
    model = StandIn()
    parts = torch.einsum("p,bpd,db->bp", model.weight_at[:5], model.embed[IDS], model.unembed[:, [3, 8]]).numpy()
    found = comprehensiveness(model, INPUTS, ExplanationQualitySpec.parse({"shares": [0.01]}))
    np.testing.assert_allclose(found[0], parts[0], rtol=1e-9)
    np.testing.assert_allclose(found[1, :3], parts[1, :3], rtol=1e-9)
    assert (found[1, 3:] == -np.inf).all()  # padding cannot be named


def test_more_shares_take_away_more_at_random() -> None:
    model = StandIn()
    spec = ExplanationQualitySpec.parse({"shares": [0.01, 1.0]})
    found = comprehensiveness(model, INPUTS, spec)
    first = comprehensiveness(model, INPUTS, ExplanationQualitySpec.parse({"shares": [0.01]}))
    whole = model.run(IDS[:1]).logits
    assert whole is not None
    np.testing.assert_allclose(found[0], (first[0] + float(whole[0, -1, 3])) / 2, rtol=1e-9)  # all of a linear answer from zero is gone


def test_one_family_of_each_kind_of_input_is_asked() -> None:
    assert [family for family in ("gpt", "bert", "vit", "whisper", "clip") if "explanation-quality" in tools(family)] == [
        "gpt",
        "bert",
        "vit",
    ]
