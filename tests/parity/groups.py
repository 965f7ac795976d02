"""Groups of completions that TRL's GRPOTrainer and RLOOTrainer have scored, without a model that generates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity.trl import TOKENIZER, cheap, episode, random_words, tiny_model
from turnwise.episode import Episode

SIZE = 4
BUDGET = 8
REWARDS: list[float | None] = [1.0, 0.0, 0.0, 0.5, 2.0, None, 2.5, 2.0, 1.0, 1.0, 1.0, 1.0]
"""Three groups: one that differs, one with an answer that nobody could score, one that is all the same."""
GROUPS = [str(i // SIZE) for i in range(len(REWARDS))]
SCORES = [np.nan if reward is None else reward for reward in REWARDS]
BETA = 0.04


@dataclass
class Scored:
    """A trainer, its model, and what it made of the completions.

    Attributes:
        trainer: Theirs.
        model: Its model, `tiny_model()`.
        inputs: What `_compute_loss` takes.
        logp: (B, T) log-probabilities of the present policy.
        prompts: Ids of each prompt.
        completions: Ids of each completion.
    """

    trainer: Any
    model: Any
    inputs: dict[str, Any]
    logp: Tensor
    prompts: list[list[int]]
    completions: list[list[int]]

    def score(self) -> dict[str, Any]:
        """Ask the trainer again, with the options that it has now."""
        return self.trainer._generate_and_score_completions([{"prompt": ""}] * len(REWARDS))

    def episodes(self) -> list[Episode]:
        """The same completions as episodes."""
        rows = zip(self.prompts, self.completions, SCORES, GROUPS, strict=True)
        return [episode(*row) for row in rows]

    def rows(self, tensor: Tensor) -> list[np.ndarray[Any, Any]]:
        """The entries of a right-padded (B, T) tensor at real tokens."""
        return [row[: len(ids)].numpy() for row, ids in zip(tensor, self.completions, strict=True)]


def scored(kind: str, folder: Path) -> Scored:
    """A trainer of TRL ("GRPO", "RLOO") with a reference that differs, and three groups that it has scored."""
    import trl
    from datasets import Dataset

    rng = np.random.default_rng(0)
    questions = [random_words(rng, 2, 6) for _ in range(len(REWARDS) // SIZE)]
    rows = [{"prompt": questions[i // SIZE]} for i in range(len(REWARDS))]
    prompts = [TOKENIZER.encode(row["prompt"]) for row in rows]
    completions = [TOKENIZER.encode(random_words(rng, 1, BUDGET)) for _ in rows]
    model = tiny_model()
    options = cheap(folder, per_device_train_batch_size=len(REWARDS))
    args = getattr(trl, f"{kind}Config")(
        **options, num_generations=SIZE, max_completion_length=BUDGET, steps_per_generation=2, beta=0.0
    )
    trainer = getattr(trl, f"{kind}Trainer")(
        model, reward_funcs=lambda **_: list(REWARDS), args=args, train_dataset=Dataset.from_list(rows),
        processing_class=TOKENIZER,
    )  # fmt: skip
    texts = TOKENIZER.batch_decode(completions)
    further = (None, texts, None, {}, None, None) if kind == "GRPO" else (texts,)
    trainer._generate = lambda _: (prompts, completions, *further)
    # Asked for a reference itself, the trainer looks for a model of that name on the hub.
    reference = tiny_model(seed=1)
    module = __import__(f"trl.trainer.{kind.lower()}_trainer", fromlist=["add_fused_lm_head"])
    module.add_fused_lm_head(reference, temperature=1.0, cast_lm_head_to_fp32=False)
    trainer.beta, trainer.ref_model = BETA, reference
    made = Scored(trainer, model, {}, torch.zeros(0), prompts, completions)
    made.inputs = made.score()
    ids = torch.cat([made.inputs["prompt_ids"], made.inputs["completion_ids"]], 1)
    mask = torch.cat([made.inputs["prompt_mask"], made.inputs["completion_mask"]], 1)
    with torch.no_grad():
        columns = made.inputs["completion_ids"].size(1)
        made.logp = trainer._get_per_token_logps_and_entropies(model, ids, mask, columns)[0]
    return made
