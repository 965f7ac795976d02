"""Players: (1) a table earns what dynamic programming says of it, (2) the same call gives the same episodes, whatever was
played before and beside, (3) a language model plays the tasks it is asked, as the collector would have it, (4) what cannot
be played is refused with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from turnwise.audit.players import policy_player, state_index, table_player
from turnwise.envs import errand
from turnwise.envs.errand import Errand
from turnwise.envs.exact import optimal_policy, policy_values, uniform_policy
from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.errors import TurnwiseError
from turnwise.models import Policy, Sampling, build_model, build_tokenizer
from turnwise.rollout import Memory

SEEDS = [2**30 + i for i in range(6)]


def short() -> Errand:
    return Errand(max_turns=8)


@pytest.fixture(scope="module")
def policy() -> Policy:
    texts = [short().reset(seed=seed)[0] for seed in range(20)] + list(errand.ACTIONS)
    tokenizer = build_tokenizer([*texts, "impossible ; delivered here held east west 1 2 3 4 5 6 7"])
    return Policy(build_model(tokenizer, seed=2, context=512), tokenizer, sampling=Sampling(max_tokens=3))


def test_a_table_earns_what_dynamic_programming_says() -> None:
    world = errand.tabular(8)
    best = optimal_policy(world)
    values = policy_values(world, best)
    env = short()
    for seed, played in zip(SEEDS, table_player(best, world.actions)(short, SEEDS), strict=True):
        env.reset(seed=seed)
        assert sum(played.rewards) == pytest.approx(values[0, env.state_index()])
        assert played.seed == seed


class Coin(TextEnv):
    """Twenty turns; "a" pays 1."""

    def __init__(self) -> None:
        super().__init__("coin", 20, ("a", "b"))

    def begin(self, seed: int) -> str:
        return "go"

    def act(self, text: str) -> Outcome:
        return Outcome("go", float(text == "a"))

    def state_index(self) -> int:
        return 0


def test_a_table_draws_its_actions_with_their_probabilities() -> None:
    table = np.array([[0.3, 0.7]])
    played = table_player(table, ("a", "b"))(Coin, [0] * 100)
    share = np.mean([p.rewards for p in played])
    # Three standard errors of 2000 draws.
    assert share == pytest.approx(0.3, abs=3 * np.sqrt(0.3 * 0.7 / 2000))
    assert len({p.actions for p in played}) > 90


def test_a_table_with_turns_follows_the_turn_of_the_world() -> None:
    table = np.zeros((20, 1), dtype=int)
    table[3:, 0] = 1
    played = table_player(table, ("a", "b"))(Coin, [0])[0]
    assert played.actions == ("a",) * 3 + ("b",) * 17


def test_a_wrapper_may_hide_the_state() -> None:
    class Hidden(gymnasium.Wrapper[str, str, str, str]):
        def state_index(self) -> int:
            return 1

    table = np.array([0, 1])
    assert state_index(Hidden(Coin())) == 1
    assert table_player(table, ("a", "b"))(lambda: Hidden(Coin()), [0])[0].actions == ("b",) * 20


@pytest.mark.parametrize("kind", ["model", "table"])
def test_the_same_call_gives_the_same_episodes(policy: Policy, kind: str) -> None:
    world = errand.tabular(8)
    player: Any = (
        policy_player(policy, slots=4) if kind == "model" else table_player(uniform_policy(world), world.actions)
    )
    played = player(short, SEEDS)
    assert [p.seed for p in played] == SEEDS
    assert [p.observations[0] for p in played] == [short().reset(seed=s)[0] for s in SEEDS]
    assert len({p.actions for p in played}) > 1
    # Whatever was played before, and in whatever order.
    assert player(short, SEEDS[::-1])[::-1] == played
    assert player(short, SEEDS) == played
    # Asked twice for a task, it plays two samples of it.
    first, second = player(short, SEEDS[:1] * 2)
    assert first == played[0]
    assert second.actions != first.actions
    assert player(short, []) == []


def test_a_model_says_what_the_world_is_told(policy: Policy) -> None:
    told: list[str] = []

    class Listening(gymnasium.Wrapper[str, str, str, str]):
        def step(self, action: str) -> Any:
            told.append(action)
            return self.env.step(action)

    (played,) = policy_player(policy, memory=Memory(0))(lambda: Listening(short()), SEEDS[:1])
    assert list(played.actions) == told
    assert len(played.rewards) == 8
    assert played.terminated
    assert played.metrics["success"] == 0.0
    env = short()
    env.reset(seed=SEEDS[0])
    assert [env.step(action)[1] for action in told] == list(played.rewards)


def test_greedy_and_limits_are_passed_on(policy: Policy) -> None:
    greedy = policy_player(policy, sampling=Sampling(temperature=0.0, max_tokens=3), max_turns=2)
    one, two = greedy(short, SEEDS[:1] * 2)
    assert one == two
    assert len(one.actions) == 2
    assert one.truncated


def broken() -> Errand:
    class Broken(Errand):
        def act(self, text: str) -> Outcome:
            raise ValueError("no such room")

    return Broken()


@pytest.mark.parametrize(
    ("play", "word"),
    [
        (lambda policy: policy_player(policy)(broken, SEEDS[:1]), "no such room"),
        (lambda policy: table_player(np.array([[0.5, 0.4]]), ("a", "b")), "sum to one"),
        (lambda policy: table_player(np.ones((2, 3)) / 3, ("a", "b")), r"\(2, 3\)"),
        (lambda policy: table_player(np.zeros((0, 1), int), ("a", "b"))(Coin, [0]), "outside"),
    ],
)
def test_what_cannot_be_played_is_refused(policy: Policy, play: Callable[[Policy], Any], word: str) -> None:
    with pytest.raises(TurnwiseError, match=word):
        play(policy)


class Uncounted(TextEnv):
    """A world that does not say its state."""

    def __init__(self) -> None:
        super().__init__("uncounted", 1)

    def begin(self, seed: int) -> str:
        return ""


def test_a_world_without_counted_states_is_refused() -> None:
    with pytest.raises(TurnwiseError, match="state_index"):
        table_player(np.zeros(3, int), ("a", "b"))(Uncounted, [0])


def test_a_reply_that_is_begun_is_gone_on_with(policy: Policy) -> None:
    """Greedy, what follows the first token of a reply is the rest of that reply."""
    greedy = policy_player(policy, sampling=Sampling(temperature=0.0, max_tokens=3))
    whole = greedy(short, SEEDS)
    begun = [played.actions[0].split()[0] for played in whole]
    ends = greedy.goes_on([played.observations[0] for played in whole], begun, SEEDS)
    for played, first, end in zip(whole, begun, ends, strict=True):
        assert f"{first} {end}".split()[:3] == played.actions[0].split()[:3]
    assert greedy.goes_on([], [], []) == []


def test_episodes_hold_what_the_transcripts_say(policy: Policy) -> None:
    player = policy_player(policy)
    for episode, played in zip(player.episodes(short, SEEDS), player(short, SEEDS), strict=True):
        assert tuple(policy.renderer.action_text(turn.act) for turn in episode.turns) == played.actions
        assert (episode.behaviour_logp < 0).all()
