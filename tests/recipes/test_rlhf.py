"""The comparison of one-turn methods: its data has the formats of real data, its gold is what the page says, and it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from turnwise.cli.main import main
from turnwise.data import Kind, load
from turnwise.recipes import waiter


@pytest.mark.parametrize(
    ("reply", "worth"),
    [
        ("Here are two cake .", 2.0),
        ("Gladly . Here are two cake .", 2.5),
        ("Gladly . Of course . Here are two cake .", 2.5),
        ("Here are two tea .", 1.0),
        ("Here are six tea . You fool .", -1.5),
        ("No .", 0.0),
        # 14 words, two of them too many; the served order is right.
        ("Here are two cake . The weather is fine today . The music new", 1.8),
        ("two cake", 0.0),
        ("", 0.0),
    ],
)
def test_the_worth_of_a_reply(reply: str, worth: float) -> None:
    assert waiter.gold("Please bring me two cake .", reply) == pytest.approx(worth)


def test_the_data_has_the_formats_of_real_data(tmp_path: Path) -> None:
    waiter.write(tmp_path, seed=3, examples=40, preferences=300)
    kinds = {name: load(tmp_path / f"{name}.jsonl").kind for name in ("sft", "preferences", "prompts", "held-out")}
    assert kinds == {
        "sft": Kind.COMPLETION, "preferences": Kind.PREFERENCE, "prompts": Kind.PROMPT, "held-out": Kind.PROMPT,
    }  # fmt: skip
    held_out = {row.prompt for row in load(tmp_path / "held-out.jsonl").rows}
    for name in ("sft", "preferences", "prompts"):
        assert not held_out & {row.prompt for row in load(tmp_path / f"{name}.jsonl").rows}
    rows = [json.loads(line) for line in (tmp_path / "preferences.jsonl").read_text().splitlines()]
    better = [waiter.gold(r["prompt"], r["chosen"]) - waiter.gold(r["prompt"], r["rejected"]) for r in rows]
    # Noisy, and right more often than not.
    assert 0.6 < sum(d > 0 for d in better) / sum(d != 0 for d in better) < 1.0
    before = (tmp_path / "sft.jsonl").read_text()
    waiter.write(tmp_path, seed=3, examples=40, preferences=300)
    assert (tmp_path / "sft.jsonl").read_text() == before


def test_the_comparison_runs_and_its_folders_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    out = tmp_path / "rlhf"
    assert main(["recipe", "rlhf", "--quick", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("SFT start", "PPO without KL", "GRPO", "rejection", "DPO", "constitutional")
    )
    assert (out / "report.html").exists()
    for name in ("sft", "ppo", "grpo", "best-of-8", "dpo", "constitutional"):
        assert AutoModelForCausalLM.from_pretrained(out / f"{name}-0" / "final").config.model_type == "llama"
    judge = AutoModelForSequenceClassification.from_pretrained(out / "reward-model-0" / "final")
    assert judge.config.num_labels == 1
    assert main(["recipe", "rlhf", "--quick", "--out", str(out)]) == 2
