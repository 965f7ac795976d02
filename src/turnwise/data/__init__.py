"""Data in files: prompts, answers, preferences and labels, read, checked and made into what training takes.

dataset = load("pairs.jsonl", learns_from="preferences")
episodes = episodes_of(transcripts(dataset), policy)
"""

from turnwise.data.convert import prompts, transcripts
from turnwise.data.dataset import LEARNS, Dataset, Report, check, check_kind, lengths, load, renames
from turnwise.data.problems import DataError, Problem
from turnwise.data.rows import Answer, Kind, Row

__all__ = [
    "LEARNS",
    "Answer",
    "DataError",
    "Dataset",
    "Kind",
    "Problem",
    "Report",
    "Row",
    "check",
    "check_kind",
    "lengths",
    "load",
    "prompts",
    "renames",
    "transcripts",
]
