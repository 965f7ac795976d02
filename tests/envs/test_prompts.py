"""Prompts as a world: (1) a conversation is asked as it is, (2) without a judge nothing is paid, (3) the row of a seed can
be had, (4) a file is asked by name and read once, (5) what is missing or mistaken is named."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from turnwise.data import DataError
from turnwise.envs import PromptEnv, make, spec
from turnwise.envs import prompts as module
from turnwise.envs.errors import EnvError, NotOffered
from turnwise.envs.registry import ByName, missing_options
from turnwise.testing import check_env
from turnwise.text import Conversation

TALK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "3 + 3"}]
ROWS = [{"prompt": "2 + 2", "completion": "4", "hard": False}, {"prompt": TALK, "completion": "6", "hard": True}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_a_conversation_is_asked_as_it_is() -> None:
    env = PromptEnv([{"prompt": Conversation(TALK)}])
    observation, _ = env.reset(seed=0)
    assert isinstance(observation, Conversation)
    assert observation.messages == tuple(TALK)


def test_without_a_judge_nothing_is_paid() -> None:
    env = PromptEnv(["a", "b"])
    check_env(lambda: PromptEnv(["a", "b"]))
    env.reset(seed=1)
    assert env.step("anything")[1:] == (0.0, True, False, {})


def test_the_row_of_a_seed() -> None:
    env = PromptEnv([{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}])
    assert [env.row_of(seed)["answer"] for seed in (0, 1, 2, 7)] == [1, 2, 1, 2]
    env.reset(seed=5)
    assert env.row == env.row_of(5)


def test_a_completion_is_what_the_expert_says() -> None:
    env = PromptEnv(ROWS[:1])
    env.reset(seed=0)
    assert env.optimal_action() == "4"
    with pytest.raises(NotOffered, match="column 'completion'"):
        PromptEnv(["a"]).optimal_action()


def test_a_file_by_name(file: Path) -> None:
    name = f"prompts?file={file}"
    env = make(name)
    assert (env.reset(seed=0)[0], env.reset(seed=1)[0]) == ("2 + 2", "system: be brief\nuser: 3 + 3")
    assert env.row_of(1)["hard"] is True
    found = spec(name)
    assert (found.actions, found.max_turns, found.inline) == (("4", "6"), 1, True)
    assert pickle.loads(pickle.dumps(ByName(name)))().rows == env.rows
    check_env(ByName(name))


def test_a_file_is_read_once_and_again_when_it_changes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from turnwise import data

    read: list[str] = []
    real = data.load
    monkeypatch.setattr(data, "load", lambda source, **options: read.append(source) or real(source, **options))
    module._rows.cache_clear()
    for _ in range(3):
        make("prompts", file=str(file))
    assert len(read) == 1
    file.write_text(json.dumps({"prompt": "new"}) + "\n")
    # Two writes may fall on one tick of the file system's clock.
    module._rows.cache_clear()
    assert make("prompts", file=str(file)).rows == [{"prompt": "new"}]


def test_the_prompt_may_have_another_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n')
    assert make(f"prompts?file={path}&prompt=question").rows == [{"prompt": "a", "answer": "b"}]


def test_mistakes_are_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"'prompts' needs its option file: prompts\?file="):
        make("prompts")
    assert missing_options(spec("prompts")) == ["file"]
    with pytest.raises(EnvError, match="no option 'fiel'; did you mean 'file'"):
        make(f"prompts?fiel={file}")
    with pytest.raises(EnvError, match="a prompt has one reply"):
        make(f"prompts?file={file}&max_turns=2")
    with pytest.raises(DataError, match="there is no file"):
        make(f"prompts?file={tmp_path / 'no.jsonl'}")
    with file.open("a") as out:
        out.write('{"prompt": ""}\n')
    with pytest.raises(DataError, match="line 3: empty"):
        make(f"prompts?file={file}&kind=prompt-only")
    assert len(make(f"prompts?file={file}&kind=prompt-only&skip_bad=true").rows) == 2
    with pytest.raises(EnvError, match="row 0 has no text"):
        PromptEnv([{"prompt": TALK}])
