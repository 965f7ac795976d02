"""Rolling a policy out in an environment."""

from turnwise.rollout.collector import Collector
from turnwise.rollout.judged import Judged
from turnwise.rollout.task import TRAIN_SEEDS, Task, held_out_tasks, training_tasks
from turnwise.rollout.transcripts import Logged, episodes_of
from turnwise.rollout.view import Memory

__all__ = [
    "TRAIN_SEEDS",
    "Collector",
    "Judged",
    "Logged",
    "Memory",
    "Task",
    "episodes_of",
    "held_out_tasks",
    "training_tasks",
]
