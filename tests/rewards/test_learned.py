"""What was learned pays: (1) the score stands at the last turn and is the scorer's own, (2) a process reward is a
probability per turn, (3) neither depends on the company an episode is judged in nor moves a weight, (4) another vocabulary
is refused with the remedy and read as text on request, steps of one answer included, (5) too long is named."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import zoo
from turnwise.batch import pack
from turnwise.episode import Episode, Turn
from turnwise.models import Policy, Scorer, build_model, build_tokenizer
from turnwise.rewards import RewardError, judged
from turnwise.rewards.learned import ProcessReward, RewardModelReward
from turnwise.testing import build_dialogue, check_reward


def fingerprint(scorer: Scorer) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(scorer.model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def scorer(kind: Any = "reward", tokenizer: Any = zoo.TOKENIZER) -> Scorer:
    return Scorer.of(Policy(build_model(tokenizer, seed=2), tokenizer), kind=kind, seed=1)


def test_the_score_of_the_whole_episode_is_paid_at_its_last_turn() -> None:
    model, episodes = scorer(), zoo.episodes(7, fresh=True)
    renderer = model.renderer
    before = fingerprint(model)
    paid = RewardModelReward(model, renderer)(episodes)
    assert fingerprint(model) == before
    for episode, array in zip(episodes, paid, strict=True):
        last = episode.turns[max(t for t, turn in enumerate(episode.turns) if turn.fresh) :]
        ids = np.concatenate([part for turn in last for part in (turn.obs, turn.act)])
        with torch.no_grad():
            own = float(model.model(input_ids=torch.tensor(ids, dtype=torch.int64)[None], use_cache=False,
                                    **plan(ids)).logits)  # fmt: skip
        assert array[:-1].tolist() == [0.0] * (len(array) - 1)
        assert array[-1] == pytest.approx(own, abs=1e-5)
    check_reward(RewardModelReward(model, renderer), episodes)


def plan(ids: np.ndarray[Any, Any]) -> dict[str, Any]:
    from turnwise.models.tree_attention import Tree
    from turnwise.tree import PrefixTree

    return {"plan": Tree(PrefixTree.of(ids, [len(ids)]), np.array([len(ids)]), torch.device("cpu"))}


def test_neither_company_nor_token_budget_changes_a_score() -> None:
    model, episodes = scorer(), zoo.episodes(6)
    together = RewardModelReward(model, model.renderer)(episodes)
    for budget in (1, 30):
        split = RewardModelReward(model, model.renderer, max_tokens=budget)(episodes[::-1])[::-1]
        assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(together, split, strict=True))
    assert RewardModelReward(model, model.renderer)([]) == []


def test_a_process_reward_is_the_probability_that_a_step_is_right() -> None:
    model, episodes = scorer("process"), zoo.episodes(5)
    paid, logs = (
        ProcessReward(model, model.renderer)(episodes),
        ProcessReward(model, model.renderer, log=True)(episodes),
    )
    with torch.no_grad():
        score = model.outputs(pack(episodes)).score
    assert score is not None
    p, at = score.softmax(-1)[:, 1].double().numpy(), 0
    for episode, probabilities, log in zip(episodes, paid, logs, strict=True):
        ends = at + np.cumsum(episode.act_lengths) - 1
        np.testing.assert_allclose(probabilities, p[ends], atol=1e-6)
        np.testing.assert_allclose(np.exp(log), probabilities, atol=1e-9)
        at += episode.n_action_tokens
    check_reward(ProcessReward(model, model.renderer), episodes)


def other() -> tuple[Any, Any]:
    """A policy's tokenizer, and another one in which every word has another id."""
    words = "see a door take the key go north open"
    return build_tokenizer([words]), build_tokenizer([words, "Ann Bob"])


def test_another_vocabulary_is_refused_with_the_remedy() -> None:
    mine, theirs = other()
    policy = Policy(build_model(mine), mine)
    with pytest.raises(RewardError, match=r"another vocabulary.*text=True.*text:FOLDER"):
        RewardModelReward(scorer(tokenizer=theirs), policy.renderer)
    with pytest.raises(RewardError, match="kind 'process'"):
        ProcessReward(scorer(), policy.renderer)
    with pytest.raises(RewardError, match="kind 'reward'"):
        RewardModelReward(scorer("process"), policy.renderer)


def test_as_text_a_dialogue_is_scored_as_if_it_had_been_written_in_the_scorers_tokens() -> None:
    mine, theirs = other()
    policy, model = Policy(build_model(mine), mine), scorer(tokenizer=theirs)
    said = [("see a door", "take the key"), ("go north", "open door")]
    own = build_dialogue(said, policy.renderer)
    translated = build_dialogue(said, model.renderer)
    assert own.turns[0].act.tolist() != translated.turns[0].act.tolist()
    (paid,) = RewardModelReward(model, policy.renderer, text=True)([own])
    (expected,) = RewardModelReward(model, model.renderer)([translated])
    np.testing.assert_allclose(paid, expected, atol=1e-6)


def steps(renderer: Any, obs: str, answer: list[str]) -> Episode:
    """One answer in steps: only the last ends with the stop token."""
    whole = build_dialogue([(obs, " ".join(answer))], renderer)
    turn, start, parts = whole.turns[0], 0, []
    for i, part in enumerate(answer):
        n = len(renderer.action_ids(part)) - (i < len(answer) - 1)
        act = turn.act[start : start + n]
        parts.append(Turn(turn.obs if not i else turn.obs[:0], act, np.zeros(n, np.float32), 0.0, fresh=not i))
        start += n
    assert start == len(turn.act)
    return replace(whole, turns=tuple(parts))


def test_as_text_the_steps_of_an_answer_stay_one_answer() -> None:
    mine, theirs = other()
    policy, model = Policy(build_model(mine), mine), scorer("process", theirs)
    answer = ["take the key", "go north", "open door"]
    own, expected = steps(policy.renderer, "see a door", answer), steps(model.renderer, "see a door", answer)
    (paid,) = ProcessReward(model, policy.renderer, text=True)([own])
    assert paid.shape == (3,)
    np.testing.assert_allclose(paid, ProcessReward(model, model.renderer)([expected])[0], atol=1e-6)


def test_an_episode_too_long_for_the_scorer_is_named() -> None:
    tokenizer = zoo.TOKENIZER
    short = Scorer.of(Policy(build_model(tokenizer, context=8), tokenizer))
    with pytest.raises(RewardError, match=r"seed 0, group 'g0'.* tokens and the scorer reads at most 8"):
        RewardModelReward(short, short.renderer)(zoo.episodes(3))


def test_it_is_booked_to_its_own_source() -> None:
    model, episodes = scorer(), zoo.episodes(3)
    paid = judged(episodes, {"reward_model": (2.0, RewardModelReward(model, model.renderer))})
    alone = RewardModelReward(model, model.renderer)(episodes)
    for episode, array in zip(paid, alone, strict=True):
        assert episode.turns[-1].rewards["reward_model"] == pytest.approx(2 * array[-1])
