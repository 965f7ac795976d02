"""What a run starts from: (1) the divergence is measured from the start policy, also when the run is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from turnwise.algorithms import PPO
from turnwise.recipes.api import train
from turnwise.runs import read_metrics

QUICK: dict[str, Any] = {"memory": 0, "max_tokens": 3, "threads": 1, "progress": False, "save_every": 1}
WARM: dict[str, Any] = {"demonstrations": 24, "warm_start_lr": 1e-2, "lr": 1e-2, "schedule": "constant"}


def kl(run: Path) -> list[float]:
    return [line["kl"] for line in read_metrics(run / "metrics.jsonl")]


@pytest.mark.parametrize("lora", [0, 2])
def test_the_divergence_is_from_the_start_policy_also_after_a_resume(tmp_path: Path, lora: int) -> None:
    if lora:
        pytest.importorskip("peft")
    algorithm = PPO(episodes=8, epochs=1, kl_coef=0.1)
    settings = {**QUICK, **WARM, "lora": lora}
    train("errand?max_turns=4", algorithm, out=tmp_path / "whole", steps=2, **settings)
    train("errand?max_turns=4", algorithm, out=tmp_path / "parts", steps=1, **settings)
    train("errand?max_turns=4", algorithm, out=tmp_path / "parts", steps=2, resume=True, **settings)
    whole = kl(tmp_path / "whole")
    assert whole[0] == pytest.approx(0.0, abs=1e-5)
    assert abs(whole[1]) > 1e-3
    assert kl(tmp_path / "parts") == whole
