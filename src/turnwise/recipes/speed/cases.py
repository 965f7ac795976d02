"""What is measured: model sizes, workloads, and one case of a workload in numbers.

Both sides build everything from a `Case`, so that what they do is equal by construction: the same weights, the same number
of tokens, the same dtype, the same number of threads, one optimizer step per step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Dtype = Literal["fp32", "bf16"]
"""float32, or bfloat16 where a side has a use for it: mixed precision in updates, a copy of the weights in rollouts."""


Rival = Literal["trl", "trl-1.12", "transformers"]
"""Whose process does the other side's work."""


@dataclass(frozen=True)
class Size:
    """The shape of a Qwen2 model from scratch, embeddings untied, as many key heads as query heads.

    Attributes:
        layers: Decoder layers.
        hidden: Width of the hidden states.
        feed: Width inside the gated MLP.
        vocabulary: Tokens.
        heads: Attention heads.
    """

    layers: int
    hidden: int
    feed: int
    vocabulary: int
    heads: int

    @property
    def trunk(self) -> int:
        """Weights that multiply every token: attention and MLP of all layers."""
        return self.layers * (4 * self.hidden**2 + 3 * self.hidden * self.feed)

    @property
    def head(self) -> int:
        """Weights of the output head, which multiply the tokens that something is predicted at."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """Trunk, head and embeddings; norms and biases are left out."""
        return self.trunk + 2 * self.head


SIZES: Mapping[str, Size] = {
    "XS": Size(2, 64, 128, 256, 4),
    "S": Size(4, 128, 512, 512, 4),
    "M": Size(6, 384, 1024, 8192, 6),
    "L": Size(12, 640, 1728, 32_000, 10),
}
"""Shapes by name: about 0.1, 1, 17 and 100 million parameters. XS is for trying things out."""


@dataclass(frozen=True)
class Case:
    """One workload at one size, in numbers.

    Attributes:
        workload: Name in `WORKLOADS`.
        size: Name in `SIZES`.
        threads: Threads of either side.
        device: Torch device.
        groups: Start states; pairs or texts of stored data.
        group_size: Rollouts of each start state.
        prompt: Tokens of the first observation, template included.
        turns: Turns of an episode.
        actions: Tokens sampled in each turn, or of a stored answer.
        observation: Tokens of each later observation, template included.
    """

    workload: str
    size: str = "S"
    threads: int = 1
    device: str = "cpu"
    groups: int = 8
    group_size: int = 8
    prompt: int = 64
    turns: int = 1
    actions: int = 64
    observation: int = 32

    @property
    def shape(self) -> Size:
        """Of the model."""
        return SIZES[self.size]

    @property
    def rows(self) -> int:
        """Sequences of a step."""
        return self.groups * self.group_size

    @property
    def length(self) -> int:
        """Tokens of each sequence."""
        return self.prompt + self.turns * self.actions + (self.turns - 1) * self.observation

    @property
    def sampled(self) -> int:
        """Tokens that one step samples; 0 where nothing is rolled out."""
        return self.rows * self.turns * self.actions if WORKLOADS[self.workload].samples else 0

    @property
    def tokens(self) -> int:
        """Tokens of all sequences of a step, as often as they occur."""
        return self.rows * self.length

    @property
    def distinct(self) -> int:
        """Distinct prefixes among them: the prompt of a group is counted once."""
        return self.groups * self.prompt + self.rows * (self.length - self.prompt)

    @property
    def predicted(self) -> int:
        """Tokens that something is predicted for, and that therefore need the output head."""
        return self.rows * self.turns * self.actions

    def as_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Workload:
    """A kind of work.

    Attributes:
        title: For tables.
        summary: What one step does, in a line.
        samples: A step rolls out before it learns.
        rival: Which process the other side runs in: ``trl``, ``trl-1.12`` or ``transformers``.
    """

    title: str
    summary: str
    samples: bool
    rival: Rival = "trl"


WORKLOADS: Mapping[str, Workload] = {
    "grpo": Workload(
        "GRPO, one turn", "8 prompts of 64 tokens, 8 answers of 64 tokens each, one optimizer step", samples=True
    ),
    "turns": Workload(
        "GRPO, many turns", "64 episodes of turns with 32 observation and 16 action tokens, one optimizer step", samples=True
    ),
    "sft": Workload("SFT", "32 texts of 128 tokens, every token but the first a target", samples=False),
    "dpo": Workload("DPO", "16 pairs of 64 + 64 tokens, reference included", samples=False),
    "reward-model": Workload("reward model", "16 pairs of 64 + 64 tokens", samples=False),
    "ppo": Workload(
        "PPO", "64 prompts of 64 tokens and answers of 64, judge, reference and critic, one epoch", samples=True,
        rival="trl-1.12",
    ),
    "decode": Workload(
        "decoding", "128 tokens after each of 1, 8 or 64 prompts of 64 tokens", samples=True, rival="transformers"
    ),
}  # fmt: skip
"""Workloads by name."""

_SHAPES: Mapping[str, Mapping[str, int]] = {
    "grpo": {},
    "turns": {"prompt": 32, "turns": 10, "actions": 16},
    "sft": {"groups": 32, "group_size": 1, "prompt": 1, "actions": 127},
    "dpo": {"groups": 16, "group_size": 2},
    "reward-model": {"groups": 16, "group_size": 2},
    "ppo": {"groups": 64, "group_size": 1},
    "decode": {"group_size": 1, "actions": 128},
}


def case(workload: str, size: str = "S", **changes: Any) -> Case:
    """The usual case of a workload, with what is to be different.

    Args:
        workload: Name in `WORKLOADS`.
        size: Name in `SIZES`.
        changes: Fields of `Case`.
    """
    return Case(workload, size, **{**_SHAPES[workload], **changes})
