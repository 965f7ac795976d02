"""Rewards of a run by name: (1) functions see the columns of their row, (2) models come from their folders, (3) a function that
fails in the middle of a run loses nothing, and the run goes on once it is mended."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from tests.engines.chat_server import said, serving
from turnwise.algorithms import Reinforce
from turnwise.envs.errors import EnvError
from turnwise.envs.prompts import PromptEnv
from turnwise.envs.registry import EnvSpec
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Sampling, Scorer, build_model, build_tokenizer
from turnwise.recipes.rewards import find_function, judge_model, rewards_of
from turnwise.recipes.settings import Feedback, Training
from turnwise.rewards import ProcessReward, RewardError, RewardModelReward, judged
from turnwise.rollout import Collector, Judged
from turnwise.runs import RunFolder, latest, read_metrics, train
from turnwise.testing import build_dialogue
from turnwise.text import Conversation

TOKENIZER = build_tokenizer(["say something nice 1 2 3 yes no please user assistant system the question"])


class Rows:
    """Makes a world over rows, as the recipe for files does."""

    def __init__(self, rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
        self.rows, self.others = rows, others

    def __call__(self) -> PromptEnv:
        return PromptEnv(self.rows)

    def asked(self, *, held_out: bool) -> list[dict[str, Any]]:
        return self.others if held_out else self.rows


def policy() -> Policy:
    return Policy(build_model(TOKENIZER, seed=1), TOKENIZER, sampling=Sampling(max_tokens=2))


def training(reward: str, **feedback: Any) -> Training:
    return dataclasses.replace(Training(Reinforce()), feedback=Feedback(reward=reward, **feedback))


WORLD = EnvSpec(
    "prompts",
    Rows(
        [{"prompt": "say 1", "answer": "1"}, {"prompt": "say 2", "answer": "2", "level": 7}],
        [{"prompt": "say 3", "answer": "3"}],
    ),
)


def said_to(acting: Policy, text: str, seed: int) -> Any:
    return build_dialogue([("say something", text)], acting.renderer, seed=seed)


def test_functions_and_verifiers_see_the_columns_of_their_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def nosy(prompts, completions, answer, level, **columns):\n"
        "    assert not columns.keys() - {'completion_ids'}\n"
        "    return [len(p) + 10 * int(a) + 100 * (l or 0) for p, a, l in zip(prompts, answer, level)]\n"
    )
    acting = policy()
    episodes = [said_to(acting, "1", 0), said_to(acting, "1", 1), said_to(acting, "1", 2)]
    paid = judged(episodes, rewards_of(training("exact, mine.py:nosy=0.1"), WORLD, acting))
    assert [episode.turns[0].rewards["exact"] for episode in paid] == [1.0, 0.0, 1.0]
    assert [episode.turns[0].rewards["nosy"] for episode in paid] == pytest.approx([1.5, 72.5, 1.5])
    held_out = rewards_of(training("exact"), WORLD, acting, held_out=True)
    assert [e.turns[0].reward for e in judged([said_to(acting, "3", 0), said_to(acting, "1", 1)], held_out)] == [
        1.0,
        0.0,
    ]


def test_a_world_by_name_has_its_rows_too(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"prompt": "say 1", "answer": "1"}\n{"prompt": "say 2", "answer": "2"}\n')
    from turnwise.envs.registry import spec

    acting = policy()
    rewards = rewards_of(training("numeric"), spec(f"prompts?file={file}"), acting)
    assert [e.turns[0].reward for e in judged([said_to(acting, "2", 1), said_to(acting, "2", 0)], rewards)] == [
        1.0,
        0.0,
    ]
    with pytest.raises(RewardError, match=r"column 'answer', which the data does not have; it has no columns"):
        rewards_of(training("exact"), spec("guess"), acting)


def test_conversations_are_given_as_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("roles.py").write_text("def roles(prompts, completions):\n    return [float(len(p)) for p in prompts]\n")
    talk = Conversation([{"role": "system", "content": "nice"}, {"role": "user", "content": "say 1"}])
    acting = policy()
    world = EnvSpec("prompts", Rows([{"prompt": talk}], []))
    episodes = [said_to(acting, "1", 0)]
    (paid,) = judged(episodes, rewards_of(training("roles.py:roles"), world, acting))
    assert paid.turns[0].reward == 2.0, "two messages"
    (paid,) = judged(episodes, rewards_of(training("roles.py:roles", form="text"), world, acting))
    assert paid.turns[0].reward == float(len(talk))


def test_models_come_from_their_folders(tmp_path: Path) -> None:
    acting = policy()
    acting.save(tmp_path / "judge")
    for kind in ("reward", "process"):
        Scorer.of(policy(), kind=kind, seed=2).save(tmp_path / kind)
    rewards = rewards_of(
        training(f"{tmp_path}/reward, text:{tmp_path}/process=2, judge:{tmp_path}/judge"), WORLD, acting
    )
    assert list(rewards) == ["reward", "process", "judge"]
    assert isinstance(rewards["reward"][1], RewardModelReward)
    assert isinstance(rewards["process"][1], ProcessReward)
    (paid,) = judged([said_to(acting, "1", 0)], rewards)
    assert 0 < paid.turns[0].rewards["process"] < 2
    assert 0 < paid.turns[0].rewards["judge"] < 1
    with pytest.raises(RewardError, match=r"holds a language model, which has no score; .* name judge:"):
        rewards_of(training(f"{tmp_path}/judge"), WORLD, acting)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RewardError, match="holds no reward model"):
        rewards_of(training(f"{tmp_path}/empty"), WORLD, acting)
    RunFolder.create(tmp_path / "run", {"training": training("").to_config()}).close()
    with pytest.raises(RewardError, match="has no final model yet; finish it with"):
        judge_model(tmp_path / "run")


def test_a_judge_behind_an_address_pays() -> None:
    acting = policy()
    with serving(lambda text, number: said("Rating: 8")) as server:
        rewards = rewards_of(training(f"judge:{server.url}#m=10"), WORLD, acting)
        (paid,) = judged([said_to(acting, "1", 0)], rewards)
    assert paid.turns[0].reward == pytest.approx(8.0)
    assert server.asked[0]["model"] == "m"


def test_a_judge_behind_an_address_keeps_to_the_deadline() -> None:
    acting = policy()

    def slow(text: str, number: int) -> Any:
        sleep(0.6)
        return said("Rating: 8")

    with serving(slow) as server:
        given = training(f"judge:{server.url}#m", reward_deadline=0.2)
        with pytest.raises(RewardError, match=r"did not answer within 0\.\d+ s"):
            judged([said_to(acting, "1", 0)], rewards_of(given, WORLD, acting))


def test_what_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("def f(:\n")
    with pytest.raises(RewardError, match=r"broken.py cannot be loaded: SyntaxError"):
        find_function("broken.py:f")
    with pytest.raises(EnvError, match=r"there is no file none\.py"):
        find_function("none.py:f")
    Path("fine.py").write_text("def polite(completions): return [0.0] * len(completions)\n")
    with pytest.raises(EnvError, match=r"has no 'polit'; did you mean 'polite'"):
        find_function("fine.py:polit")


HEAD = "count = 0\n"
FAILING = {
    "raises": (
        "def judge(completions):\n    {guard}raise ValueError('out of tune')\n",
        "'judge' raised ValueError: out of tune",
    ),
    "length": ("def judge(completions):\n    {guard}return [1.0]\n", "returned 1 scores for 4 completions"),
    "nan": ("async def judge(completions):\n    {guard}return [float('nan')] * len(completions)\n", "returned nan for"),
    "text": ("async def judge(completions):\n    {guard}return ['good'] * len(completions)\n", "returned 'good' for"),
}
GUARD = "global count\n    count += 1\n    if count == 3: "
GOOD = "    return [float('1' in c) for c in completions]\n"


@pytest.mark.parametrize("fault", FAILING)
def test_a_function_that_fails_in_iteration_3_loses_nothing(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, complaint = FAILING[fault]
    mine = Path("mine.py")
    mended = HEAD + source.partition("\n")[0] + "\n" + GOOD

    def run(folder: Path, steps: int = 5) -> None:
        acting = policy()
        inner = Collector(WORLD.make, acting, on_length="act", where="inline", slots=4)
        collected = Judged(inner, rewards_of(training("mine.py:judge"), WORLD, acting))
        opened = RunFolder.open(folder) if folder.exists() else RunFolder.create(folder, {})
        settings: dict[str, Any] = {"progress": False, "tensorboard": False, "save_every": 10}
        algorithm = Reinforce(groups=2, group_size=2, minibatch=4)
        with opened:
            train(algorithm, collected, LocalLearner(acting, lr=1e-2), opened, steps=steps, **settings)
        collected.close()

    mine.write_text(HEAD + source.format(guard=GUARD) + GOOD)
    with pytest.raises(RewardError, match=complaint):
        run(Path("run"))
    assert len(read_metrics(Path("run/metrics.jsonl"))) == 2
    found = latest(Path("run/checkpoints"))
    assert found is not None
    assert found.iteration == 2
    mine.write_text(mended)
    run(Path("run"))
    run(Path("undisturbed"))
    ends = [Path(name, "final", "model.safetensors").read_bytes() for name in ("run", "undisturbed")]
    assert ends[0] == ends[1], "as if it had never failed"
    lines = [[{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(Path(n, "metrics.jsonl"))]
             for n in ("run", "undisturbed")]  # fmt: skip
    assert lines[0] == lines[1]
    assert lines[0][-1]["rewards/judge/unscorable"] == 0
