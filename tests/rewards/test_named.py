"""Rewards by name: (1) every form is read, (2) what is none says what may have been meant, (3) what is named pays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnwise.episode import Episode, Stop
from turnwise.models import build_tokenizer
from turnwise.rewards import Reward, RewardError, judged
from turnwise.rewards.named import Loaders, RewardSpec, anchored, parse_rewards, resolve
from turnwise.testing import ConstantReward, build_dialogue
from turnwise.text import Conversation, Renderer

RENDERER = Renderer(build_tokenizer(["what is 2 + 2 ?", "4 please", "5", "system be brief"]))


def episode(text: str, seed: int = 0) -> Episode:
    return build_dialogue([("what is 2 + 2 ?", text)], RENDERER, seed=seed, rewards=[0.25])


def nothing(*_: Any) -> Any:
    raise AssertionError("not to be loaded")


def loaders(**given: Any) -> Loaders:
    return Loaders(**{"function": nothing, "model": nothing, "judge": nothing, "endpoint": nothing, **given})


def spec(text: str) -> RewardSpec:
    (one,) = parse_rewards(text)
    return one


def test_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/rm/final", "judge-model"):
        Path(folder).mkdir(parents=True)
    assert spec("environment") == RewardSpec("environment", 1.0, "environment", "environment")
    assert spec("rewards.py:polite=0.5") == RewardSpec("polite", 0.5, "function", "rewards.py:polite")
    assert spec("my.package:score = -2") == RewardSpec("score", -2.0, "function", "my.package:score")
    assert spec("runs/rm") == RewardSpec("rm", 1.0, "model", "runs/rm")
    assert spec("text:runs/rm/final=1e-1") == RewardSpec("rm", 0.1, "text-model", "runs/rm/final")
    assert spec("exact") == RewardSpec("exact", 1.0, "verifier", "exact", "answer")
    assert spec("numeric@solution=2") == RewardSpec("numeric", 2.0, "verifier", "numeric", "solution")
    assert spec("code") == RewardSpec("code", 1.0, "verifier", "code", "tests")
    assert spec("rule:max-words:3") == RewardSpec("max-words:3", 1.0, "rule", "max-words:3")
    assert spec('"rule:forbids:a,b=1"=-0.5') == RewardSpec("forbids:a,b=1", -0.5, "rule", "forbids:a,b=1")
    assert spec("judge:http://127.0.0.1:80/v1#a/b") == RewardSpec(
        "judge", 1.0, "judge", "http://127.0.0.1:80/v1", "a/b"
    )
    assert spec("judge:judge-model@own.txt=3") == RewardSpec("judge", 3.0, "judge", "judge-model", "", "own.txt")
    assert spec("missing-eos=0.5") == RewardSpec("missing-eos", 0.5, "missing-eos", "missing-eos")
    assert spec("overlong@100") == RewardSpec("overlong", 1.0, "overlong", "overlong", "100:20")
    assert spec("overlong@100:50").option == "100:50"
    several = parse_rewards("a.py:f=0.5, b.py:f,  runs/rm ,exact,b.py:f")
    assert [one.name for one in several] == ["f", "f-2", "rm", "exact", "f-3"]
    assert [one.weight for one in several] == [0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no reward is named"),
        (" , ", "no reward is named"),
        ("exakt", r"no reward 'exakt'; did you mean 'exact'\?, and no such folder"),
        ("enviroment=0.5", "did you mean 'environment'"),
        ("missing_eos", "did you mean 'missing-eos'"),
        ("runs/none", "there is no reward 'runs/none'.*no such folder"),
        ("judge:http://localhost/v1", "does not say which model; write judge:http://localhost/v1#MODEL"),
        ("judge:nowhere", "there is no reward 'judge:nowhere'"),
        ("rule:contain:x", "no rule is called 'contain'"),
        ("overlong", "needs a limit in tokens, such as overlong@256"),
        ("overlong@many", "needs a limit in tokens"),
        ('"rule:forbids:a', "a quote is not closed"),
        ('"exact" twice', "only a weight may"),
        ("mine.py", r"is a file; name the function in it too: mine.py:FUNCTION"),
    ],
)
def test_what_is_none_says_so(text: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("")
    with pytest.raises(RewardError, match=complaint):
        parse_rewards(text)


def test_files_and_folders_in_full_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b").mkdir()
    text = (
        'mine.py:f=0.5, m:g, "a,b"=2, "text:a,b", "judge:a,b@q.txt"=-1, judge:http://h/v1#m@q.txt, exact@x=3, '
        '"rule:forbids:a,b=1", missing-eos=0.25, overlong@9:3, environment'
    )
    full = anchored(text)
    before = parse_rewards(text)
    monkeypatch.chdir("/")
    after = parse_rewards(full)
    assert anchored(full) == full
    assert [(a.name, a.weight, a.kind, a.option) for a in after] == [
        (b.name, b.weight, b.kind, b.option) for b in before
    ]
    named = ("function", "model", "text-model", "judge")
    assert [a.target for a in after if a.kind not in named] == [b.target for b in before if b.kind not in named]
    own = str(tmp_path)
    assert [a.target for a in after if a.kind in named] == [
        f"{own}/mine.py:f", "m:g", f"{own}/a,b", f"{own}/a,b", f"{own}/a,b", "http://h/v1",
    ]  # fmt: skip
    assert {a.template for a in after} == {"", f"{own}/q.txt"}


def paid(text: str, episodes: list[Episode], loading: Loaders | None = None, **settings: Any) -> list[Episode]:
    return judged(episodes, resolve(parse_rewards(text), RENDERER, loading or loaders(), **settings))


def test_what_is_named_pays() -> None:
    rows = [{"answer": "4"}, {"answer": "4"}]
    settings: dict[str, Any] = {"columns": lambda e: rows[e.seed], "known": ["answer"]}
    text = "environment=2, numeric, rule:contains:please=0.5, missing-eos, overlong@2:1=10"
    right, wrong = paid(text, [episode("4"), episode("5 please", 1)], **settings)
    assert right.turns[0].rewards == {
        "environment": 0.5, "numeric": 1.0, "contains:please": 0.0, "missing-eos": 0.0, "overlong": -10.0,
    }  # fmt: skip
    assert wrong.turns[0].rewards["numeric"] == 0.0
    assert wrong.turns[0].rewards["contains:please"] == 0.5


def test_a_column_that_is_missing_is_found_before_anything_is_judged() -> None:
    with pytest.raises(
        RewardError, match=r"column 'answer', which the data does not have; did you mean 'answers'.*exact@COL"
    ):
        paid("exact", [], columns=lambda e: {}, known=["answers", "level"])
    with pytest.raises(RewardError, match="it has no columns"):
        paid("code", [])


def test_functions_are_given_text_or_messages_and_the_prompt_word_for_word() -> None:
    seen: list[dict[str, Any]] = []

    async def judge(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float | None]:
        seen.append({"prompts": prompts, "completions": completions, **columns})
        return [1.0, None]

    both = [episode("4"), episode("5", 1)]
    loading = loaders(function=lambda path: judge)
    settings: dict[str, Any] = {"columns": lambda e: {"level": e.seed}}
    first, second = paid("m:judge", both, loading, **settings)
    assert seen[0] == {"prompts": ["what is 2 + 2 ?"] * 2, "completions": ["4", "5"], "level": [0, 1]}
    assert first.turns[0].reward == 1.0
    assert math.isnan(second.turns[0].reward)
    spoken = Conversation([{"role": "system", "content": "be brief"}, {"role": "user", "content": "2+2?"}])
    paid("m:judge", both, loading, form="messages", prompt=lambda e: spoken if e.seed else "Plain", **settings)
    assert seen[1]["prompts"] == [[{"role": "user", "content": "Plain"}], list(spoken.messages)]
    assert seen[1]["completions"] == [[{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "5"}]]


def test_models_and_judges_come_from_whoever_loads_them(tmp_path: Path) -> None:
    asked: list[Any] = []

    def constant(*arguments: Any) -> Reward:
        asked.append(arguments)
        return ConstantReward(float(len(asked)))

    loading = loaders(model=constant, judge=constant, endpoint=constant)
    text = f"{tmp_path}, text:{tmp_path}, judge:{tmp_path}@q.txt, judge:http://localhost/v1#m=0.5"
    (one,) = paid(text, [episode("4")], loading)
    assert asked == [(tmp_path, False), (tmp_path, True), (tmp_path, "q.txt"), ("http://localhost/v1", "m", "")]
    assert sorted(one.turns[0].rewards.values()) == [1.0, 2.0, 2.0, 3.0]
    with pytest.raises(RewardError, match="m:five is a int and no function"):
        paid("m:five", [], loaders(function=lambda path: 5))


def test_an_answer_that_is_cut_is_fined() -> None:
    from dataclasses import replace

    whole = episode("4")
    cut = replace(whole, turns=(replace(whole.turns[0], stop=Stop.LENGTH),))
    first, second = paid("missing-eos=0.5", [whole, cut])
    np.testing.assert_allclose([first.turns[0].reward, second.turns[0].reward], [0.0, -0.5])
