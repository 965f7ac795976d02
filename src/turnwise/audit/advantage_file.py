"""Somebody's own advantage code in a file, and made-up episodes to ask it about where there is no run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.controls import planted
from turnwise.audit.errors import AuditError
from turnwise.audit.evidence import Advantages, Evidence, Iteration
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError

_CONTRACT = (
    "def advantages(rewards, groups): rewards is a list of (n_turns,) arrays, one per episode, and groups a list of str"
)


def load_advantages(path: str) -> Advantages:
    """Somebody's own advantage function, from ``FILE.py:function`` or ``package.module:function``. This runs the file.

    The function is called as ``function(rewards, groups)``:

    - ``rewards``: list of float64 arrays (n_turns,), what each turn of each episode was paid; NaN where nobody could say;
    - ``groups``: list of str, for each episode the task that it started from: rollouts of one task share it.

    It returns one array (n_turns,) for each episode, in the same order. A tensor is taken too. It is called many times with
    one reward changed, and has to answer the same when asked the same.

    Raises:
        AuditError: a file that cannot be run, or a thing that cannot be called in this way.
        EnvError: no such file, module or name.
    """
    from turnwise.envs.registry import find

    try:
        function = find(path)
    except TurnwiseError:
        raise
    except Exception as error:
        raise AuditError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise AuditError(f"{path} is a {type(function).__name__}; give a function: {_CONTRACT}")
    _check_signature(path, function)

    def advantages(episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        rewards = [episode.rewards for episode in episodes]
        try:
            found = function([one.copy() for one in rewards], [episode.group for episode in episodes])
        except Exception as error:
            raise AuditError(f"{path} raised {type(error).__name__} on {len(rewards)} episodes: {error}") from error
        return _checked(path, found, [len(one) for one in rewards])

    return advantages


def made_up_evidence(advantages: Advantages, *, plays: int = 64, seed: int = 0) -> Evidence:
    """Evidence for credit alone: episodes with random rewards, and the code in question.

    16 tasks with 4 rollouts each, of 2 to 9 turns of one token, every turn paid a standard normal number.

    Args:
        advantages: The code.
        plays: How often it may be called for each figure.
        seed: Of the rewards and the lengths.
    """
    rng = np.random.default_rng([seed, 16])
    episodes = tuple(
        planted(rng.normal(size=int(rng.integers(2, 10))).tolist(), tokens=1, seed=task)
        for task in range(16)
        for _ in range(4)
    )
    return Evidence(iterations=(Iteration(episodes),), advantages=advantages, plays=plays, seed=seed)


def _check_signature(path: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of what is built in has none
        return
    try:
        signature.bind([], [])
    except TypeError as error:
        raise AuditError(
            f"{path}{signature} cannot be called with rewards and groups ({error}); {_CONTRACT}"
        ) from error


def _checked(path: str, found: Any, lengths: list[int]) -> list[NDArray[np.float64]]:
    """One finite array (n_turns,) per episode."""
    try:
        number = len(found)
    except TypeError:
        raise AuditError(
            f"{path} returned {found!r:.60} for {len(lengths)} episodes; return a list of arrays (n_turns,)"
        ) from None
    if number != len(lengths):
        raise AuditError(f"{path} returned {number} arrays for {len(lengths)} episodes; return one for each, in order")
    result: list[NDArray[np.float64]] = []
    for i, (one, n) in enumerate(zip(found, lengths, strict=True)):
        try:
            values = np.array(one.detach().cpu().numpy() if hasattr(one, "detach") else one, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise AuditError(
                f"{path} returned {one!r:.60} for episode {i}, not an array of numbers ({error})"
            ) from error
        if values.ndim == 0 or values.shape == (1,) != (n,):
            raise AuditError(
                f"{path} returned one number for episode {i}, which has {n} turns; where all turns get the same, say so: "
                "np.full(len(rewards[i]), advantage)"
            )
        if values.shape != (n,):
            raise AuditError(
                f"{path} returned shape {values.shape} for episode {i}, which has {n} turns; return ({n},)"
            )
        if not np.isfinite(values).all():
            raise AuditError(
                f"{path} returned {values[~np.isfinite(values)][0]} at turn {int(np.flatnonzero(~np.isfinite(values))[0])} "
                f"of episode {i}; an advantage is a finite number, 0 where nothing is to be learnt"
            )
        result.append(values)
    return result
