"""The catalogue of what can be planted into a model at hand. Adding one is a file and a line."""

from workbench.core.catalog import Catalog

SPIKES = Catalog(
    "spike",
    {
        "token": ("workbench.calibration.spike:WAY", "is a token that decides the next one named", "standard"),
        "direction": ("workbench.calibration.spike_direction:WAY", "are classes of words moved apart read off", "standard"),
        "canaries": ("workbench.calibration.spike_canaries:WAY", "is it said that a text was read in training", "standard"),
    },
)
