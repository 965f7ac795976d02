"""The audit: what a run's evidence says about what was learnt, measured and never guessed.

A measure takes evidence and returns a measurement, or says what it would need. Every measure comes with controls, which
are evidence whose answer is known.
"""

from turnwise.audit.controls import Control, Trial, planted
from turnwise.audit.evidence import Advantages, Evidence, Iteration, Level, evidence_of
from turnwise.audit.measure import Measure, Measurement, NotMeasurable, Series
from turnwise.audit.onlineness import own_share, version_lag
from turnwise.audit.player import Player, play_once, speaker
from turnwise.audit.players import LanguagePlayer, policy_player, state_index, table_player
from turnwise.audit.quantity import Quantity, Section
from turnwise.audit.reward_signal import reward_delay, reward_density

__all__ = [
    "Advantages",
    "Control",
    "Evidence",
    "Iteration",
    "LanguagePlayer",
    "Level",
    "Measure",
    "Measurement",
    "NotMeasurable",
    "Player",
    "Quantity",
    "Section",
    "Series",
    "Trial",
    "evidence_of",
    "own_share",
    "planted",
    "play_once",
    "policy_player",
    "reward_delay",
    "reward_density",
    "speaker",
    "state_index",
    "table_player",
    "version_lag",
]
