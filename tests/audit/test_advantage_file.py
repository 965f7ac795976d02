"""Somebody's own advantage code: (1) known answers through a file, (2) every wrong answer is named, with the remedy."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from turnwise.audit import Measurement
from turnwise.audit.advantage_file import load_advantages, made_up_evidence
from turnwise.audit.credit_reach import acausal_share, at_lag, reach, reach_tokens, within_episode
from turnwise.audit.errors import AuditError
from turnwise.errors import TurnwiseError
from turnwise.testing import build_episode

GAMMA = 0.8


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def test_return_to_go_in_a_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"""
        import numpy as np
        def advantages(rewards, groups):
            found = []
            for r in rewards:
                g, back = 0.0, []
                for x in r[::-1]:
                    g = x + {GAMMA} * g
                    back.append(g)
                found.append(np.array(back[::-1]))
            flat = np.concatenate(found)
            return [(a - flat.mean()) / flat.std() for a in found]
        """,
    )
    evidence = made_up_evidence(load_advantages(f"{path}:advantages"))
    turns = reach(evidence)
    assert isinstance(turns, Measurement)
    assert turns.n > 20
    for lag in range(9):
        assert at_lag(lag)(turns) == pytest.approx(GAMMA**lag, abs=1e-6)
    tokens, later, within = reach_tokens(evidence), acausal_share(evidence), within_episode(evidence)
    assert isinstance(tokens, Measurement)
    assert tokens.value == pytest.approx(turns.value), "a turn of the made-up episodes is one token"
    assert isinstance(later, Measurement)
    assert later.value == 0.0
    assert isinstance(within, Measurement)
    assert within.interval[0] > 0.1, "turns are told apart"


def test_one_number_for_an_episode_in_a_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        import torch
        def flat(rewards, groups):
            return [torch.full((len(r),), float(r.sum()), requires_grad=True) for r in rewards]
        """,
    )
    evidence = made_up_evidence(load_advantages(f"{path}:flat"))
    within = within_episode(evidence)
    assert isinstance(within, Measurement)
    assert within.value == pytest.approx(0.0, abs=1e-12)
    later = acausal_share(evidence)
    assert isinstance(later, Measurement)
    assert later.interval[0] > 0.3


def test_what_it_is_given_is_its_own(tmp_path: Path) -> None:
    """Code that writes into its arguments changes nothing but its copies."""
    path = written(
        tmp_path,
        """
        def greedy(rewards, groups):
            for r in rewards:
                r *= 0.5
            return rewards
        """,
    )
    code = load_advantages(f"{path}:greedy")
    episodes = [build_episode([2.0, 4.0])]
    for _ in range(2):
        np.testing.assert_array_equal(code(episodes)[0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def advantages(rewards, groups): return [r.sum() for r in rewards]", "one number for episode 0.*np.full"),
        ("def advantages(rewards, groups): return [[r.sum()] for r in rewards]", "one number for episode 0.*np.full"),
        ("def advantages(rewards, groups): return rewards[1:]", "returned 1 arrays for 2 episodes"),
        ("def advantages(rewards, groups): return None", "returned None for 2 episodes"),
        ("def advantages(rewards, groups): return [r[:-1] for r in rewards]", "shape .2,. for episode 0"),
        ("def advantages(rewards, groups): return [r * float('nan') for r in rewards]", "nan at turn 0 of episode 0"),
        ("def advantages(rewards, groups): return [r / 0.0 for r in rewards]", "inf at turn"),
        ("def advantages(rewards, groups): return ['a'] * len(rewards)", "'a' for episode 0, not an array of numbers"),
        ("def advantages(rewards, groups): return groups[0].shape", "raised AttributeError on 2 episodes"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_wrong_answers_are_named(tmp_path: Path, text: str, said: str) -> None:
    code = load_advantages(f"{written(tmp_path, text)}:advantages")
    with pytest.raises(AuditError, match=said):
        code([build_episode([1.0, 2.0, 3.0]), build_episode([1.0, 2.0])])


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("def advantages(rewards): return rewards", "advantages", "cannot be called with rewards and groups"),
        ("def advantages(a, b, c): return a", "advantages", "def advantages.rewards, groups."),
        ("advantages = 3", "advantages", "is a int; give a function"),
        ("def advantages(rewards, groups) return", "advantages", "cannot be imported: SyntaxError"),
        ("1 / 0", "advantages", "cannot be imported: ZeroDivisionError"),
        ("def advantages(rewards, groups): return rewards", "advantage", "did you mean 'advantages'"),
    ],
)
def test_files_that_hold_no_such_code(tmp_path: Path, text: str, name: str, said: str) -> None:
    with pytest.raises(TurnwiseError, match=said):
        load_advantages(f"{written(tmp_path, text)}:{name}")


@pytest.mark.parametrize(
    ("path", "said"),
    [("nowhere.py:advantages", "no file nowhere.py"), ("mine.py", "file.py:name"), ("", "file.py:name")],
)
def test_paths_that_lead_nowhere(path: str, said: str) -> None:
    with pytest.raises(TurnwiseError, match=said):
        load_advantages(path)


def test_code_with_chance_in_it_is_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        import random
        def advantages(rewards, groups): return [r + random.random() for r in rewards]
        """,
    )
    with pytest.raises(AuditError, match="differently when asked again; seed"):
        reach(made_up_evidence(load_advantages(f"{path}:advantages")))
