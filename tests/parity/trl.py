"""What the tests against the installed TRL share: one tiny model with equal weights on both sides, and gradients to compare.

    theirs = tiny_model()
    ours = policy_like(theirs)                    before a trainer patches `theirs`
    with quiet():                                 third-party warnings are not ours to mend
        trainer = DPOTrainer(theirs, args=DPOConfig(**cheap(tmp_path)), ...)
        loss = trainer._compute_loss(theirs, trainer.data_collator(rows), return_outputs=False)
        loss.backward()
    metrics = learner.gradient(batch, objective)
    same_loss_and_gradient(loss, theirs, metrics, ours)

`pytestmark = needs_trl` skips a file, with the reason, where TRL is missing or another release.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from turnwise.episode import Episode, Source, Turn
from turnwise.metrics import Metrics
from turnwise.models import Policy, build_tokenizer

RELEASE = "1.16"
"""The release of TRL that these tests were written against."""

WORDS = "go north south east west take key open door see a b c d e f g h"
TOKENIZER = build_tokenizer([WORDS])


def _missing() -> str:
    try:
        found = metadata.version("trl")
    except metadata.PackageNotFoundError:
        return "trl is not installed"
    return "" if found.startswith(RELEASE) else f"trl is {found}; these tests compare with {RELEASE}"


needs_trl = pytest.mark.skipif(bool(_missing()), reason=_missing() or "trl is there")
"""Mark of tests that call the installed TRL."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings, and the progress bars, of other libraries."""
    from datasets.utils import logging as datasets_logging
    from transformers.utils import logging as transformers_logging

    datasets_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cheap(folder: Path, **options: Any) -> dict[str, Any]:
    """Arguments of a TRL configuration that only serves to compute a loss on the CPU in float32."""
    plain = {
        "output_dir": str(folder), "report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "per_device_train_batch_size": 64, "disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no",
    }  # fmt: skip
    return plain | options


def tiny_model(seed: int = 0) -> Any:
    """A Qwen2 of two layers with random weights, large enough that its distributions are far from uniform."""
    config = Qwen2Config(
        vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, tie_word_embeddings=False,
        pad_token_id=TOKENIZER.pad_token_id, eos_token_id=TOKENIZER.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).eval()


def policy_like(model: Any) -> Policy:
    """Our policy with a copy of the model's weights."""
    return Policy(copy.deepcopy(model), TOKENIZER)


def random_words(rng: np.random.Generator, low: int, high: int) -> str:
    """Between `low` and `high` − 1 words, each with the blank before it, as TRL's text columns hold them."""
    return "".join(f" {word}" for word in rng.choice(WORDS.split(), size=rng.integers(low, high)))


def episode(prompt: Sequence[int], completion: Sequence[int], reward: float = 0.0, group: str = "0") -> Episode:
    """One turn in which the completion follows the prompt."""
    act = np.array(completion, np.int32)
    turn = Turn(
        np.array(prompt, np.int32), act, np.zeros(len(act), np.float32), reward, fresh=True, rewards={"label": reward}
    )
    nothing = np.zeros(0, np.int32)
    return Episode(group, (turn,), terminated=True, truncated=False, last_obs=nothing, source=Source.DATASET)


def gradients(model: Any) -> dict[str, Tensor]:
    """Gradient of every trainable parameter by name; zeros where there is none."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def same_gradient(theirs: dict[str, Tensor], ours: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Every entry of every parameter's gradient agrees, relative to the largest entry of all where that exceeds 1."""
    assert theirs.keys() == ours.keys()
    scale = max(1.0, *(float(g.abs().max()) for g in theirs.values()))
    assert max(float(g.abs().max()) for g in theirs.values()) > 1e-4, "a gradient of nothing proves nothing"
    worst = {name: float((theirs[name] - ours[name]).abs().max()) / scale for name in theirs}
    name = max(worst, key=lambda n: worst[n])
    assert worst[name] <= tolerance, f"the gradient of {name} differs by {worst[name]:.2g}"


def same_loss_and_gradient(
    loss: Tensor | float, theirs: Any, metrics: Metrics, ours: Policy, tolerance: float = 1e-5
) -> None:
    """TRL's loss and the gradient that it left in `theirs`, against our learner's metrics and the gradient in `ours`."""
    assert metrics["loss"][0] == pytest.approx(float(torch.as_tensor(loss).detach()), rel=tolerance, abs=tolerance)
    same_gradient(gradients(theirs), gradients(ours.model), tolerance)
