"""Training on a file: (1) a prompt is trained on or held out, never both, and the same ones in every run; (2) passes decide the
number of iterations; (3) rows that the model cannot read are named before anything is trained; (4) an evaluation asks the
held-out rows and pays them as the run was paid; (5) a model that scores is judged on held-out rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from turnwise import DPO, GRPO, KTO, SFT, TurnwiseError, load, train
from turnwise.algorithms import RewardModel
from turnwise.cli.main import main
from turnwise.data import load as load_data
from turnwise.recipes.dataset import split

DISHES = ("tea", "soup", "cake", "rice")
TINY: dict[str, Any] = {"max_tokens": 8, "threads": 1, "progress": False, "steps": 1}


def orders(n: int = 24) -> list[dict[str, Any]]:
    return [{"prompt": f"bring {i} {DISHES[i % 4]}", "completion": f"{i} {DISHES[i % 4]} coming"} for i in range(n)]


def pairs(n: int = 24) -> list[dict[str, Any]]:
    return [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": "coming"}
        for row in orders(n)
        for _ in range(2)
    ]


def file(tmp_path: Path, rows: Sequence[Mapping[str, Any]], name: str = "rows.jsonl") -> str:
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def steps_of(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines())


def test_a_prompt_is_on_one_side_and_always_the_same(tmp_path: Path) -> None:
    first = split(load_data(file(tmp_path, pairs())), 0.25)
    assert len(first.held_out) == 12
    assert not {r.prompt for r in first.training.rows} & {r.prompt for r in first.held_out.rows}
    again = split(load_data(file(tmp_path, pairs()[::-1])), 0.25)
    assert {r.prompt for r in again.held_out.rows} == {r.prompt for r in first.held_out.rows}
    with pytest.raises(TurnwiseError, match="nothing on one side"):
        split(load_data(file(tmp_path, pairs(2))), 0.1)


def test_passes_decide_the_number_of_iterations(tmp_path: Path) -> None:
    sft = train(algorithm=SFT(episodes=10), data=file(tmp_path, orders(25)), passes=2, **TINY)
    assert steps_of(sft.folder) == 5
    dpo = train(
        algorithm=DPO(groups=16), data=file(tmp_path, pairs(20), "pairs.jsonl"), passes=1, model=str(sft.folder / "final"), **TINY
    )  # fmt: skip
    assert steps_of(dpo.folder) == 3, "40 pairs, 16 per iteration"
    with pytest.raises(TurnwiseError, match="say how long with --steps"):
        train(
            algorithm=GRPO(groups=1, group_size=2),
            data=file(tmp_path, orders()),
            passes=1,
            reward="rule:max-words:3",
            **TINY,
        )


def test_rows_that_are_too_long_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    rows = [*orders(3), {"prompt": "bring " * 40, "completion": "no"}]
    out = tmp_path / "run"
    with pytest.raises(
        TurnwiseError, match=r"line 4: over length: 4\d tokens of the prompt and \d of the answer, more than 30"
    ):
        train(algorithm=SFT(episodes=2), data=file(tmp_path, rows), max_length=30, out=out, **TINY)
    assert not out.exists()
    trained = train(algorithm=SFT(episodes=2), data=file(tmp_path, rows), max_length=30, skip_bad=True, out=out, **TINY)
    assert trained.policy is not None


def test_an_evaluation_asks_the_held_out_rows_and_pays_as_the_run_did(tmp_path: Path) -> None:
    rewards = tmp_path / "rewards.py"
    rewards.write_text("def dish(prompts, completions, price, **_):\n    return [float(p) for p in price]\n")
    rows = [{**row, "price": i} for i, row in enumerate(orders())]
    trained = train(
        algorithm=GRPO(groups=1, group_size=2), data=file(tmp_path, rows), held_out=0.25, reward=f"{rewards}:dish", out=tmp_path / "run", **TINY
    )  # fmt: skip
    held_out = split(load_data(file(tmp_path, rows)), 0.25).held_out.rows
    played = load(tmp_path / "run").rollouts(len(held_out))
    assert {episode.undiscounted_return for episode in played} == {float(row.columns["price"]) for row in held_out}
    assert all(set(episode.turns[0].rewards) == {"dish"} for episode in played)
    assert trained.env.summary.endswith("6 held out")


def test_a_reward_model_is_judged_on_rows_that_it_has_not_seen(tmp_path: Path) -> None:
    trained = train(
        algorithm=RewardModel(groups=16), data=file(tmp_path, pairs()), held_out=0.25, out=tmp_path / "rm", **{**TINY, "steps": 12}, lr=2e-3
    )  # fmt: skip
    report = trained.evaluate()
    figures = {name: value for name, value, _ in report.rows()}
    assert figures["pairs"] == "12"
    again = load(tmp_path / "rm").evaluate()
    assert [row for row in again.rows()] == [row for row in report.rows()]
    assert float(figures["accuracy"].rstrip("%")) > 0.9


def test_prompts_without_a_judge_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(TurnwiseError, match="say who judges"):
        train(algorithm=GRPO(groups=1, group_size=2), data=file(tmp_path, orders()), out=out, **TINY)
    assert not out.exists()
    with pytest.raises(TurnwiseError, match="two worlds"):
        train("guess", GRPO(groups=1, group_size=2), data=file(tmp_path, orders()), **TINY)
    with pytest.raises(TurnwiseError, match="learns from preferences in a file"):
        train("errand", "dpo", **TINY)


def test_words_that_the_start_model_never_says_are_named(tmp_path: Path) -> None:
    sft = train(algorithm=SFT(episodes=2), data=file(tmp_path, orders(8)), **TINY)
    rows = [{**row, "chosen": row["completion"], "rejected": "nonsense"} for row in orders(8)]
    data = file(tmp_path, [{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in rows], "pairs.jsonl")
    with pytest.raises(TurnwiseError, match=r"never says \('<unk>'\)"):
        train(algorithm=DPO(groups=4), data=data, model=str(sft.folder / "final"), **TINY)


def test_a_reward_that_ends_the_process_is_an_error_like_any_other(tmp_path: Path) -> None:
    rewards = tmp_path / "rewards.py"
    rewards.write_text("import sys\ndef leave(prompts, completions, **_):\n    sys.exit(3)\n")
    with pytest.raises(TurnwiseError, match=r"'leave' raised.*called sys.exit\(3\)"):
        train(algorithm=GRPO(groups=1, group_size=2), data=file(tmp_path, orders()), reward=f"{rewards}:leave", **TINY)


def test_a_preference_with_one_side_is_no_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "chosen": row["completion"]} for row in orders(4)]
    with pytest.raises(TurnwiseError, match="a column 'chosen' and no 'rejected'"):
        train(algorithm=DPO(groups=4), data=file(tmp_path, rows), **TINY)


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    rows = [{"question": row["prompt"], "reply": row["completion"]} for row in orders(4)]
    trained = train(
        algorithm=SFT(episodes=2), data=file(tmp_path, rows), columns="prompt=question completion=reply", **TINY
    )
    assert len(trained.rollouts(4)) == 4


def test_a_file_that_has_changed_stops_a_resume(tmp_path: Path) -> None:
    data, out = file(tmp_path, pairs()), tmp_path / "run"
    start = train(algorithm=SFT(episodes=4), data=file(tmp_path, orders(), "sft.jsonl"), **TINY).folder / "final"
    settings = {**TINY, "algorithm": DPO(groups=4), "data": data, "model": str(start), "out": out}
    train(**settings)
    before = Path(data).read_text()
    file(tmp_path, [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs()])
    with pytest.raises(TurnwiseError, match="the file of --data is not what"):
        train(resume=True, **{**settings, "steps": 2})
    Path(data).write_text(before)
    assert steps_of(train(resume=True, **{**settings, "steps": 2}).folder) == 2


@pytest.mark.parametrize("method", ["constitutional", "self-judge", "rejection-sampling"])
def test_methods_that_roll_out_count_no_passes(tmp_path: Path, method: str) -> None:
    rows = [{**row, "label": i % 2 == 0} for i, row in enumerate(orders())]
    (tmp_path / "principles.txt").write_text("Say less. [words: 3]\n")
    named = {"principles": str(tmp_path / "principles.txt")} if method == "constitutional" else {}
    with pytest.raises(TurnwiseError, match="say how long with --steps"):
        train(algorithm=method, data=file(tmp_path, rows), passes=2, **named, **TINY)


def test_texts_are_held_out_by_what_they_say(tmp_path: Path) -> None:
    parts = split(load_data(file(tmp_path, [{"text": f"line {i} of many"} for i in range(20)])), 0.25)
    assert (len(parts.training), len(parts.held_out)) == (15, 5)
    with pytest.raises(TurnwiseError, match="nothing to train on"):
        train(algorithm=SFT(), data=file(tmp_path, orders()), held_out=1.0, **TINY)


def test_an_evaluation_says_what_it_did_not_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run without a judge has no return; one without held-out rows is told that its prompts were trained on."""
    rewards = tmp_path / "rewards.py"
    rewards.write_text("def one(prompts, completions, **_):\n    return [1.0] * len(prompts)\n")
    out = tmp_path / "run"
    train(algorithm=SFT(episodes=4), data=file(tmp_path, orders()), out=out, **TINY)
    assert main(["eval", str(out), "--episodes", "4"]) == 0
    shown = capsys.readouterr()
    assert "return" not in shown.out
    assert "nobody judges these replies" in shown.out
    assert shown.err.count("no rows were held out") == 1
    assert json.loads((out / "eval.json").read_text())["judged"] is False
    others = file(tmp_path, [{"prompt": "bring 99 tea"}], "others.jsonl")
    assert main(["eval", str(out), "--episodes", "4", "--data", others, "--reward", f"{rewards}:one"]) == 0
    shown = capsys.readouterr()
    assert "return" in shown.out
    assert "1 prompts of" in " ".join(shown.out.split())
    assert "held out" not in shown.out + shown.err
    again = load(out, data=others, reward=f"{rewards}:one").evaluate(4)
    assert again.undiscounted_return.mean == 1.0


def test_texts_without_prompts_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    train(algorithm=SFT(episodes=4), data=file(tmp_path, [{"text": f"line {i}"} for i in range(4)]), out=out, **TINY)
    assert main(["eval", str(out), "--episodes", "4"]) == 2
    assert capsys.readouterr().err.startswith("error: the file holds texts without prompts")


def test_a_folder_that_pays_has_nothing_of_it_run(tmp_path: Path) -> None:
    """A stored run may name code; as a reward, it is a model and nothing else."""
    start = train(algorithm=SFT(episodes=4), data=file(tmp_path, orders(), "sft.jsonl"), **TINY).folder / "final"
    judge = tmp_path / "judge"
    train(algorithm=RewardModel(groups=4), data=file(tmp_path, pairs()), model=str(start), out=judge, **TINY)
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass X: pass\n")
    about = json.loads((judge / "config.json").read_text())
    about["config"]["training"]["algorithm"] = {"name": f"{evil}:X"}
    about["config"]["training"]["model"]["trust_remote_code"] = True
    (judge / "config.json").write_text(json.dumps(about))
    trained = train(
        algorithm=GRPO(groups=1, group_size=2), data=file(tmp_path, orders(), "sft.jsonl"), model=str(start), reward=str(judge), **TINY
    )  # fmt: skip
    assert trained.policy is not None
    assert not (tmp_path / "ran").exists()


def test_a_small_margin_is_still_a_good_answer_to_a_method_of_single_labels(tmp_path: Path) -> None:
    start = train(algorithm=SFT(episodes=4), data=file(tmp_path, orders(), "sft.jsonl"), **TINY).folder / "final"
    data = file(tmp_path, [{**row, "margin": 0.3} for row in pairs()])
    trained = train(algorithm=KTO(episodes=16), data=data, model=str(start), **TINY)
    shares = json.loads((trained.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < shares["labels/desirable"] < 1
