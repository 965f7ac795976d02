"""What the world's answers are worth: the closed loop against the same actions played blind.

Two tasks that begin alike (the first observation is the same; what chance does later is not) make a pair. Each is played
live, and each is played again with the other's actions, whatever is observed: yoked. A script does not look, so yoked is
as good as live; whoever depends on feedback loses.

Where chance plays no part there is nothing to react to that was not known at the start, and the gain is zero by
construction. What the policy itself makes of its observations is then seen by blanking them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

from turnwise.audit.controls import Control, Trial, planted
from turnwise.audit.evidence import Evidence, Iteration, Level
from turnwise.audit.measure import Measurement, NotMeasurable, ratio_interval, unseen_share
from turnwise.audit.player import Player, TextGame, play_once, speaker
from turnwise.audit.players import held_out_seeds, state_index, table_player
from turnwise.audit.quantity import Quantity, Section
from turnwise.envs.exact import Tabular
from turnwise.envs.table_env import TableEnv
from turnwise.episode import Transcript

_GAIN = "world/closed_loop_gain"
_WORTH = "world/feedback_worth"
_DEPTH = "world/interaction_depth"

_LOOKED_AT = 8
"""Tasks that are looked at for each that is played, in search of two that begin alike."""

_NOISE = 2**40
"""Seeds of tasks are far below; what lies above numbers the noise."""


class Blanked(gymnasium.Wrapper[str, str, str, str]):
    """The world as it is, and nothing to be seen of it after the first observation.

    A table (see `turnwise.audit.players.table_player`) is told the state that the episode began in.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._begun = state_index(self.env) if self.env.has_wrapper_attr("state_index") else 0
        return observation, info

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = self.env.step(action)
        return "", reward, terminated, truncated, info

    def state_index(self) -> int:
        """The state the episode began in."""
        return self._begun


class Noisy(gymnasium.Wrapper[str, str, str, str]):
    """A world whose noise is an option of ``reset``: a seed of ``s + 2⁴⁰ k`` is task s under noise k."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        noise, task = divmod(seed or 0, _NOISE)
        return self.env.reset(seed=task, options={**(options or {}), "noise": noise})


def closed_loop_gain(evidence: Evidence) -> Measurement | NotMeasurable:
    """How much more the policy earns by looking than by acting blind: J(live) − J(yoked).

    For a pair of tasks a, b that begin alike, ½ (J(a) + J(b) − J(a with b's actions) − J(b with a's actions)), mean over
    pairs; the returns are undiscounted, and live and yoked meet the same noise. An episode that outlasts the other's
    actions repeats the last of them, and is watched no longer than the player would watch. Yoked control after Church
    (1964). Needs L3 and tasks that begin alike: a fixed start, few prompts, or an environment with the reset option
    ``noise``.
    """
    if evidence.player is None or evidence.make_env is None:
        return NotMeasurable(_GAIN, Level.L3, "nobody plays; it needs the policy and its environment")
    make, pairs = _pairs(evidence.make_env, evidence)
    if len(pairs) < 2:
        looked = _LOOKED_AT * evidence.plays
        return NotMeasurable(
            _GAIN, Level.L3, f"of {looked} tasks no four make two pairs that begin alike, or the environment cannot be seeded, "
            "so nothing can be replayed under other noise"
        )  # fmt: skip
    lived = evidence.player(make, [seed for pair in pairs for seed in pair])
    if not all(episode.actions for episode in lived):
        return NotMeasurable(_GAIN, Level.L3, "the policy took no action in some of its episodes")
    env = make()
    gains: list[float] = []
    try:
        for (a, b), first, second in zip(pairs, lived[::2], lived[1::2], strict=True):
            yoked = _replayed(env, a, second.actions, first) + _replayed(env, b, first.actions, second)
            gains.append((sum(first.rewards) + sum(second.rewards) - yoked) / 2)
    finally:
        env.close()
    how = f"return live − yoked in {len(pairs)} pairs of tasks that begin alike, each replayed with the other's actions"
    how += _agreed(gains, "pairs", all(a.actions == b.actions for a, b in zip(lived[::2], lived[1::2], strict=True)))
    return Measurement(
        _GAIN,
        float(np.mean(gains)),
        ratio_interval(gains, np.ones(len(gains)).tolist()),
        len(pairs),
        how,
        unit="reward",
    )


def feedback_worth(evidence: Evidence) -> Measurement | NotMeasurable:
    """How much less the policy earns when it sees the first observation and then nothing: J(live) − J(blanked).

    Mean difference of undiscounted returns over tasks, both played with the same seed. It holds what the observations
    tell and also what the policy loses by reading a text it does not know, so that it bounds the worth of feedback from
    above. Needs L3.
    """
    if evidence.player is None or (make := evidence.make_env) is None:
        return NotMeasurable(_WORTH, Level.L3, "nobody plays; it needs the policy and its environment")
    seeds = held_out_seeds(evidence.plays, evidence.seed)
    live, blank = evidence.player(make, seeds), evidence.player(lambda: Blanked(make()), seeds)
    lost = [sum(a.rewards) - sum(b.rewards) for a, b in zip(live, blank, strict=True)]
    if not lost:
        return NotMeasurable(_WORTH, Level.L3, "no episode may be played (plays=0)")
    how = f"return live − with blank observations after the first, the same {len(lost)} tasks"
    how += _agreed(lost, "tasks", all(a.actions == b.actions for a, b in zip(live, blank, strict=True)))
    interval = ratio_interval(lost, np.ones(len(lost)).tolist())
    return Measurement(_WORTH, float(np.mean(lost)), interval, len(lost), how, unit="reward")


def interaction_depth(evidence: Evidence) -> Measurement | NotMeasurable:
    """How often the world answered before the policy's last action, per episode; 0 where episodes have one turn.

    An answer counts where the policy could still act on it: the observations between an episode's first action and its
    last. Steps of one answer are one action. Whether an answer told anything that was not known at the start, the
    closed-loop gain says. Needs L1; where no episodes are recorded, the policy plays (L3).
    """
    if evidence.episodes:
        depths = [float(len(episode.answers) - 1) for episode in evidence.episodes]
        how = f"{len(depths)} recorded episodes"
    elif evidence.player is not None and evidence.make_env is not None:
        played = evidence.player(evidence.make_env, held_out_seeds(evidence.plays, evidence.seed))
        depths = [_depth(episode) for episode in played if episode.actions]
        how = f"{len(depths)} episodes played"
    else:
        return NotMeasurable(_DEPTH, Level.L1, "there are no episodes, and nobody plays any")
    if not depths:
        return NotMeasurable(_DEPTH, Level.L3, "the policy took no action")
    how = f"answers of the world before the last action, {how}"
    interval = ratio_interval(depths, np.ones(len(depths)).tolist())
    return Measurement(_DEPTH, float(np.mean(depths)), interval, len(depths), how, unit="turns")


def _agreed(values: Sequence[float], units: str, same: bool) -> str:
    """What an interval cannot say: units that all agree show no spread, and need not be all there is."""
    if same:
        return "; the actions are the same in both"
    if len(set(values)) > 1:
        return ""
    return f"; all {units} agree, so that up to {unseen_share(len(values)):.0%} of them may differ unseen"


def _depth(episode: Transcript) -> float:
    return 0.0 if episode.separator is not None else float(len(episode.actions) - 1)


def _pairs(make: Callable[[], TextGame], evidence: Evidence) -> tuple[Callable[[], TextGame], list[tuple[int, int]]]:
    """Pairs of tasks that begin alike, and what plays them."""
    wanted = max(evidence.plays // 2, 1)
    env = make()
    try:
        if isinstance(getattr(env.unwrapped, "noise", None), int):
            seeds = held_out_seeds(wanted, evidence.seed)
            return lambda: Noisy(make()), [(seed, seed + _NOISE) for seed in seeds]
        waiting: dict[str, int] = {}
        pairs: list[tuple[int, int]] = []
        for seed in held_out_seeds(_LOOKED_AT * evidence.plays, evidence.seed):
            prompt = str(env.reset(seed=seed)[0])
            other = waiting.pop(prompt, None)
            if other is None:
                waiting[prompt] = seed
            else:
                pairs.append((other, seed))
            if len(pairs) == wanted:
                break
        # What does not begin again as it began cannot be paired by its seed.
        again = {str(env.reset(seed=seed)[0]) == str(env.reset(seed=other)[0]) for seed, other in pairs[:3]}
        return make, pairs if again == {True} else []
    finally:
        env.close()


def _replayed(env: TextGame, seed: int, actions: Sequence[str], live: Transcript) -> float:
    """Return of a list of actions, the last one repeated; stopped where the player stopped watching the live episode."""
    limit = len(live.actions) if live.truncated else None

    class Watched(gymnasium.Wrapper[str, str, str, str]):
        steps = 0

        def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
            observation, reward, terminated, truncated, info = self.env.step(action)
            self.steps += 1
            return observation, reward, terminated, truncated or self.steps == limit, info

    def say(observations: Sequence[str], own: Sequence[str], _: int) -> str:
        return actions[min(len(own), len(actions) - 1)]

    return sum(play_once(Watched(env), seed, say).rewards)


# ---- known answers ---------------------------------------------------------------------------------------------------

_TURNS = 9


def _matching(flip: float) -> Tabular:
    """Each turn shows a side, and naming it pays 1; then the side changes with probability `flip`, whatever was said."""
    stay = np.array([[[1.0 - flip, flip]] * 2] * 2)
    successor = np.array([[[s, 1 - s]] * 2 for s in range(2)])
    reward = np.array([[[float(a == s)] * 2 for a in range(2)] for s in range(2)])
    ended = np.zeros((2, 2, 2), dtype=bool)
    return Tabular(stay, successor, reward, ended, np.array([0.5, 0.5]), _TURNS, ("left", "right"))


def _looks(tabular: Tabular, plays: int) -> Evidence:
    """The player that names the side it sees."""
    player = table_player(np.array([0, 1]), tabular.actions)
    return Evidence(player=player, make_env=lambda: TableEnv(tabular), plays=plays)


def _speaks(tabular: Tabular, player: Player, plays: int = 40) -> Evidence:
    return Evidence(player=player, make_env=lambda: TableEnv(tabular), plays=plays)


_script = speaker(lambda observations, own, seed: "left" if len(own) % 2 else "right")
_silent = Evidence(config={})


def gain_controls() -> list[Control | Trial]:
    """Known answers of `closed_loop_gain`."""
    coin = _matching(0.5)
    # Who sees the side always names it. Blind, the first turn is right, as the prompt was the same, and each of the
    # other eight in half of the cases: 9 − (1 + 4) = 4. A pair's gain has a standard deviation of √2.
    looking = 4.0
    return [
        Control("a script in a world of chance", _speaks(coin, _script), 0.0),
        Control("who looks, where each turn is a coin", lambda: _looks(coin, 400), looking, 0.4),
        Control("who looks, where nothing is left to chance", _looks(_matching(1.0), 40), 0.0),
        Control("nobody plays", _silent, None),
    ]


def worth_controls() -> list[Control | Trial]:
    """Known answers of `feedback_worth`."""
    # Blind, the first side is named nine times: right in turns 1, 3 … 9 of sides that change every turn.
    return [
        Control("a script", _speaks(_matching(0.5), _script), 0.0),
        Control("who looks, where the side changes every turn", _looks(_matching(1.0), 20), 4.0),
        Control("who looks, where the side stays", _looks(_matching(0.0), 20), 0.0),
        Control("nobody plays", _silent, None),
    ]


def depth_controls() -> list[Control | Trial]:
    """Known answers of `interaction_depth`."""
    one, three = planted([1.0]), planted([0.0, 0.0, 1.0])
    return [
        Control("one turn", Evidence(iterations=(Iteration((one, one)),)), 0.0),
        Control("three turns: two answers before the last action", Evidence(iterations=(Iteration((three,)),)), 2.0),
        Control("one turn and three turns", Evidence(iterations=(Iteration((one, three)),)), 1.0),
        Control("nine turns, played", _speaks(_matching(0.5), _script, 4), 8.0),
        Control("no episodes, nobody plays", _silent, None),
    ]


QUANTITIES = (
    Quantity(
        _GAIN,
        "closed-loop gain",
        "How much of the return is owed to looking: J(live) − J(another episode's actions from the same start)?",
        Section.WORLD,
        closed_loop_gain,
        gain_controls,
        Level.L3,
    ),
    Quantity(
        _WORTH,
        "worth of feedback",
        "How much return is lost when all observations after the first are blank?",
        Section.WORLD,
        feedback_worth,
        worth_controls,
        Level.L3,
    ),
    Quantity(
        _DEPTH,
        "interaction depth",
        "How often does the world answer before the policy's last action, per episode?",
        Section.WORLD,
        interaction_depth,
        depth_controls,
        Level.L1,
    ),
)
"""What this module measures."""
