"""The audit: what a run's evidence says about what was learnt, measured and never guessed.

A measure takes evidence and returns a measurement, or says what it would need. Every measure comes with controls, which
are evidence whose answer is known.
"""

from turnwise.audit.controls import Control, planted
from turnwise.audit.evidence import Evidence, Iteration, Level, evidence_of
from turnwise.audit.measure import Measure, Measurement, NotMeasurable
from turnwise.audit.onlineness import own_share, version_lag
from turnwise.audit.reward_signal import reward_delay, reward_density

__all__ = [
    "Control",
    "Evidence",
    "Iteration",
    "Level",
    "Measure",
    "Measurement",
    "NotMeasurable",
    "evidence_of",
    "own_share",
    "planted",
    "reward_delay",
    "reward_density",
    "version_lag",
]
