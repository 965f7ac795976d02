"""Learners: who moves weights."""

from turnwise.learners.local import LearnerError, LocalLearner, evaluate

__all__ = ["LearnerError", "LocalLearner", "evaluate"]
