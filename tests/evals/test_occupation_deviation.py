"""The deviation's interval covers as often as it says, and a common shift does not touch it."""

import numpy as np
import pytest

from evals.suites.occupation_deviation import prediction
from workbench.core.errors import BadValue

LEANS = np.linspace(-1, 1, 24) / 2


def coverage(noise_of_one: float, *, shift: float, dose: float, repeats: int = 1500) -> float:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(repeats):
        y = 0.5 + shift + dose * LEANS + rng.normal(0, 0.02, 24)
        y[3] += rng.normal(0, noise_of_one) if noise_of_one else 0.0
        _, low, high = prediction(y, LEANS, 0.95)
        inside += int(low[3] <= dose * LEANS[3] <= high[3])
    return inside / repeats


@pytest.mark.parametrize(("shift", "dose"), [(0.0, 0.0), (-0.1, 0.0), (0.05, 0.8)])
def test_nominal_coverage(shift: float, dose: float) -> None:
    assert abs(coverage(0.0, shift=shift, dose=dose) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 1500)


def test_an_occupation_with_more_noise_than_the_others_is_caught() -> None:
    assert coverage(0.08, shift=0.0, dose=0.0) < 0.6


def test_statsmodels_gives_the_same_interval() -> None:
    import statsmodels.api as sm

    y = 0.45 + 0.7 * LEANS + np.random.default_rng(1).normal(0, 0.03, 24)
    keep = np.arange(24) != 5
    fit = sm.OLS(y[keep], sm.add_constant(LEANS[keep])).fit()
    frame = fit.get_prediction([[1.0, 0.0]]).summary_frame(alpha=0.05)
    deviation, low, high = prediction(y, LEANS, 0.95)
    assert np.isclose(deviation[5], y[5] - frame["mean"].iloc[0], rtol=1e-12)
    assert np.isclose(high[5] - low[5], frame["obs_ci_upper"].iloc[0] - frame["obs_ci_lower"].iloc[0], rtol=1e-10)


def test_too_few_or_equal_leans_raise() -> None:
    with pytest.raises(BadValue, match="at least 5"):
        prediction(np.zeros(4), LEANS[:4], 0.95)
    with pytest.raises(BadValue, match="not all equal"):
        prediction(np.zeros(6), np.zeros(6), 0.95)
