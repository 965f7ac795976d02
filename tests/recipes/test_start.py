"""What a run starts from: (1) the divergence is measured from the start policy, also when the run is resumed,
(2) a stored adapter is trained on, as it is, (3) and so is a stored critic, (4) a warm start keeps to the same limits,
(5) devices that are not there are refused, (6) how updates are computed can be chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from turnwise import learners
from turnwise.algorithms import PPO, Reinforce
from turnwise.errors import TurnwiseError
from turnwise.models import Policy
from turnwise.recipes.api import train
from turnwise.recipes.training import load
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


def test_a_stored_adapter_is_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    world, algorithm = "errand?max_turns=2", PPO(episodes=2, epochs=1)
    train(world, algorithm, out=tmp_path / "base", steps=1, **QUICK)
    base = tmp_path / "base" / "final"
    train(world, algorithm, out=tmp_path / "first", model=str(base), lora=2, steps=1, lr=1e-2, **QUICK)
    first = tmp_path / "first" / "final"
    assert (first / "adapter_config.json").exists()
    train(world, algorithm, out=tmp_path / "second", model=str(first), lora=2, steps=1, lr=1e-2, **QUICK)
    policy = load(tmp_path / "second").policy
    assert policy.parameters().keys() == Policy.from_pretrained(first).parameters().keys()
    assert all(name.count("lora_") == 1 for name in policy.parameters())
    with pytest.raises(TurnwiseError, match=r"of rank 2.* lora=4 cannot change it"):
        train(world, algorithm, out=tmp_path / "third", model=str(first), lora=4, steps=1, **QUICK)
    assert not (tmp_path / "third").exists()


def test_an_adapter_is_drawn_from_the_seed_of_the_run(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    train("errand?max_turns=2", PPO(episodes=2, epochs=1), out=tmp_path / "base", steps=1, **QUICK)
    drawn = []
    for seed in (0, 1):
        settings = {**QUICK, "model": str(tmp_path / "base" / "final"), "lora": 2, "seed": seed, "lr": 1e-9}
        trained = train("errand?max_turns=2", PPO(episodes=2, epochs=1), out=tmp_path / str(seed), steps=1, **settings)
        drawn.append({name: half for name, half in trained.policy.parameters().items() if "lora_A" in name})
    assert all(not half.allclose(drawn[1][name], atol=1e-3) for name, half in drawn[0].items())


@pytest.mark.parametrize("extra", [{}, {"demonstrations": 8}, {"lora": 2}])
def test_a_stored_critic_is_trained_on(tmp_path: Path, extra: dict[str, Any]) -> None:
    if "lora" in extra:
        pytest.importorskip("peft")
    world, algorithm = "errand?max_turns=2", PPO(episodes=2, epochs=1)
    first = train(world, algorithm, out=tmp_path / "first", steps=1, lr=1e-1, **QUICK).policy.value_head
    assert first is not None
    assert float(first.weight.detach().abs().max()) > 1e-2
    settings = {**QUICK, **extra, "model": str(tmp_path / "first" / "final"), "lr": 1e-9, "steps": 1}
    second = train(world, algorithm, out=tmp_path / "second", **settings).policy.value_head
    assert second is not None
    assert second.weight.allclose(first.weight, atol=1e-6)
    third = train(world, Reinforce(groups=1, group_size=2), out=tmp_path / "third", **settings)
    assert third.policy.value_head is None


def test_a_warm_start_keeps_to_the_limits_of_the_optimiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    class Noted(learners.LocalLearner):
        def update(self, batch: Any, objective: Any) -> Any:
            limits.append((self.max_tokens, self.max_grad_norm))
            return super().update(batch, objective)

    monkeypatch.setattr(learners, "LocalLearner", Noted)
    settings = {**QUICK, "demonstrations": 8, "micro_batch_tokens": 77, "max_grad_norm": 0.5, "steps": 1}
    train("errand?max_turns=2", PPO(episodes=2, epochs=1), out=tmp_path, **settings)
    # At least one update of the warm start and one of the algorithm.
    assert len(limits) >= 2
    assert set(limits) == {(77, 0.5)}


def test_a_device_that_is_not_there_is_refused_and_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(TurnwiseError, match=r"no device 'cuda:7' here.*finds cpu; a CUDA device needs"):
        train("errand?max_turns=4", Reinforce(groups=1, group_size=2), out=tmp_path / "run", device="cuda:7", **QUICK)
    assert not (tmp_path / "run").exists()
    train(
        "errand?max_turns=4", Reinforce(groups=1, group_size=2), out=tmp_path / "run", steps=1, device="auto", **QUICK
    )
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")


def test_a_run_acts_on_the_cpu_where_its_device_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    train("errand?max_turns=4", Reinforce(groups=1, group_size=2), out=out, steps=1, **QUICK)
    about = json.loads((out / "config.json").read_text())
    about["config"]["training"]["model"]["device"] = "cuda:7"
    (out / "config.json").write_text(json.dumps(about))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert load(out).policy.device.type == "cpu"


def test_a_run_of_before_a_setting_goes_on_with_its_default(tmp_path: Path) -> None:
    out, algorithm = tmp_path / "run", Reinforce(groups=1, group_size=2)
    train("errand?max_turns=4", algorithm, out=out, steps=1, **QUICK)
    about = json.loads((out / "config.json").read_text())
    del about["config"]["training"]["optimiser"]["precision"], about["config"]["training"]["model"]["device"]
    (out / "config.json").write_text(json.dumps(about))
    with pytest.raises(TurnwiseError, match="only steps may be raised"):
        train("errand?max_turns=4", algorithm, out=out, steps=2, resume=True, precision="bf16", **QUICK)
    train("errand?max_turns=4", algorithm, out=out, steps=2, resume=True, **QUICK)
    assert len(read_metrics(out / "metrics.jsonl")) == 2


def test_updates_of_a_run_can_be_checkpointed_and_in_mixed_precision(tmp_path: Path) -> None:
    def weights(name: str, **options: Any) -> dict[str, torch.Tensor]:
        settings = {**QUICK, **WARM, "steps": 2, **options}
        trained = train("errand?max_turns=4", Reinforce(groups=2, group_size=2), out=tmp_path / name, **settings)
        return {name: p.detach() for name, p in trained.policy.parameters().items()}

    plain, again = weights("plain"), weights("again", gradient_checkpointing=True)
    assert all(torch.equal(again[name], plain[name]) for name in plain)
    mixed = weights("mixed", precision="bf16")
    assert all(values.dtype == torch.float32 for values in mixed.values())
    assert not all(torch.equal(mixed[name], plain[name]) for name in plain)
