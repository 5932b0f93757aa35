"""Statistics: thin, typed functions over scipy and statsmodels, each checked against a published example or a second computation.

Every function refuses empty, NaN and mismatched input with BadValue, and is the same for the same seed.
"""

from workbench.core.stats.correlation import Correlation, correlation
from workbench.core.stats.counts import RankAUC, Reach, mcnemar_exact, rank_auc, reaches
from workbench.core.stats.detection import Limit, limit_of_detection
from workbench.core.stats.equivalence import Equivalence, equivalence_interval, tost, tost_estimate
from workbench.core.stats.intervals import clopper_pearson, constant_interval, mean_interval, wilson
from workbench.core.stats.multiplicity import benjamini_hochberg, holm
from workbench.core.stats.permutation import Permuted, paired_permutation, permutation_test
from workbench.core.stats.power import mde_proportion, minimal_detectable_effect, sample_size, sample_size_proportion
from workbench.core.stats.regression import Slope, slope
from workbench.core.stats.resampling import Estimate, bootstrap, fewest, mean, paired_bootstrap, ratio
from workbench.core.stats.unpaired import unpaired_interval

__all__ = [
    "Correlation",
    "Equivalence",
    "Estimate",
    "Limit",
    "Permuted",
    "RankAUC",
    "Reach",
    "Slope",
    "benjamini_hochberg",
    "bootstrap",
    "clopper_pearson",
    "constant_interval",
    "correlation",
    "equivalence_interval",
    "fewest",
    "holm",
    "limit_of_detection",
    "mcnemar_exact",
    "mde_proportion",
    "mean",
    "mean_interval",
    "minimal_detectable_effect",
    "paired_bootstrap",
    "paired_permutation",
    "permutation_test",
    "rank_auc",
    "ratio",
    "reaches",
    "sample_size",
    "sample_size_proportion",
    "slope",
    "tost",
    "tost_estimate",
    "unpaired_interval",
    "wilson",
]
