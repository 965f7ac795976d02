"""Runs: the training loop, what it writes down, and what can be read back.

Importing this package costs numpy; torch, pyarrow and TensorBoard are loaded when they are first needed.
"""

from turnwise.runs.checkpoint import Checkpoint, latest
from turnwise.runs.driver import train
from turnwise.runs.errors import Interrupted, RunError
from turnwise.runs.evaluate import Estimate, Evaluation, across_runs, compare, evaluation_seeds, summarise
from turnwise.runs.folder import RunFolder
from turnwise.runs.importers import read_trl_completions, read_verifiers
from turnwise.runs.log import read_metrics
from turnwise.runs.protocols import Algorithm, Improvement, Learner, SavedPolicy, Source
from turnwise.runs.record import read_episodes, read_rows, read_streams, write_episodes

__all__ = [
    "Algorithm",
    "Checkpoint",
    "Estimate",
    "Evaluation",
    "Improvement",
    "Interrupted",
    "Learner",
    "RunError",
    "RunFolder",
    "SavedPolicy",
    "Source",
    "across_runs",
    "compare",
    "evaluation_seeds",
    "latest",
    "read_episodes",
    "read_metrics",
    "read_rows",
    "read_streams",
    "read_trl_completions",
    "read_verifiers",
    "summarise",
    "train",
    "write_episodes",
]
