"""Rewards written as plain Python functions of text.

`EpisodeJudge` takes the signature that is common for reward functions of language models,
``f(prompts, completions, completion_ids, **columns) -> list[float | None]`` (TRL's, so that such functions run unchanged),
and pays at the last turn. `TurnJudge` takes ``f(observation, action) -> float | None`` and pays at every turn. Both
take ordinary and ``async`` functions.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Episode
from turnwise.rewards.calls import accepted, name_of, number, place_of, within
from turnwise.rewards.reward import RewardError, where
from turnwise.text import Conversation, Reader, Renderer

Columns = Callable[[Episode], Mapping[str, Any]]
"""Episode -> further keyword arguments of a reward function, such as the row of a data set that its seed stands for."""


class EpisodeJudge:
    """One score per episode, paid at its last turn; the turns before get 0.

    The function is called once with all episodes and keyword arguments, each a list with one entry per episode:

    - ``prompts``: the first observation;
    - ``completions``: what the policy wrote, the actions of several turns on a line each. With ``form="messages"`` a
      prompt is ``[{"role": "user", "content": ...}]`` and a completion the rest of the dialogue as such messages, the
      world speaking as the user;
    - ``completion_ids``: all action ids in a row, stop tokens included;
    - one per column.

    Arguments that the function does not name are left out, unless it takes ``**kwargs``.

    Args:
        function: Returns one number per episode; None where it cannot say, which makes the turn NaN.
        renderer: The renderer that the episodes are made with.
        form: What prompts and completions look like.
        columns: Further arguments; must name the same ones for every episode.
        prompt: The prompt of an episode, word for word, where somebody knows it; read off its ids by default. A
            `turnwise.text.Conversation` keeps its messages.
        deadline: Seconds the function may take for one call.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        renderer: Renderer,
        *,
        form: Literal["text", "messages"] = "text",
        columns: Columns | None = None,
        prompt: Callable[[Episode], str] | None = None,
        deadline: float = 600.0,
    ) -> None:
        if form not in ("text", "messages"):
            raise RewardError(f"form={form!r}; use 'text' or 'messages'")
        self.function = function
        self.reader = Reader(renderer)
        self.form = form
        self.columns = columns
        self.prompt = prompt
        self.deadline = deadline

    def __call__(self, episodes: list[Episode]) -> list[NDArray[np.float64]]:
        """Per episode (n_turns,): zeros, and the score at the last turn.

        Raises:
            RewardError: the function raised or hung, or did not return one number or None per episode.
        """
        paid = [np.zeros(len(episode.turns)) for episode in episodes]
        asked = [i for i, episode in enumerate(episodes) if episode.turns]
        if not asked:
            return paid
        who = f"reward function {name_of(self.function)!r}"
        chosen = [episodes[i] for i in asked]
        arguments = accepted(self.function, self._arguments(chosen), who)
        try:
            answer = within(self.deadline, lambda: self.function(**arguments), who)
        except RewardError:
            raise
        except Exception as error:
            raise RewardError(
                f"{who} raised {type(error).__name__}: {error}{place_of(error, self.function)}, asked about {len(chosen)} "
                f"episodes, the first of them {where(chosen[0])}"
            ) from error
        if isinstance(answer, str | bytes | Mapping) or not hasattr(answer, "__len__"):
            raise RewardError(f"{who} returned {answer!s:.80}; return a list with one number per completion")
        if len(answer) != len(chosen):
            raise RewardError(
                f"{who} returned {len(answer)} scores for {len(chosen)} completions; return one for each, in order"
            )
        for i, value in zip(asked, answer, strict=True):
            paid[i][-1] = number(value, who, where(episodes[i]))
        return paid

    def _arguments(self, episodes: list[Episode]) -> dict[str, list[Any]]:
        dialogues = [self.reader.transcript(episode) for episode in episodes]
        prompts: list[Any] = [dialogue.observations[0] for dialogue in dialogues]
        if self.prompt is not None:
            prompts = [self.prompt(episode) for episode in episodes]
        completions: list[Any] = ["\n".join(dialogue.actions) for dialogue in dialogues]
        if self.form == "messages":
            prompts = [_opening(prompt) for prompt in prompts]
            completions = [_messages(dialogue.observations, dialogue.actions) for dialogue in dialogues]
        ids = [[int(token) for turn in episode.turns for token in turn.act] for episode in episodes]
        return {"prompts": prompts, "completions": completions, "completion_ids": ids, **self._columns(episodes)}

    def _columns(self, episodes: list[Episode]) -> dict[str, list[Any]]:
        if self.columns is None:
            return {}
        rows = [dict(self.columns(episode)) for episode in episodes]
        for episode, row in zip(episodes, rows, strict=True):
            if row.keys() != rows[0].keys():
                raise RewardError(
                    f"columns(episode) names {sorted(row)} for {where(episode)} and {sorted(rows[0])} for another; "
                    "name the same ones for every episode, with None for what is missing"
                )
        taken = sorted({"prompts", "completions", "completion_ids"} & set(rows[0]))
        if taken:
            raise RewardError(
                f"columns(episode) names {taken[0]!r}, which is filled in already; call it something else"
            )
        return {name: [row[name] for row in rows] for name in rows[0]}


class TurnJudge:
    """One score per turn, from what was observed and what was answered.

    Args:
        function: ``f(observation, action)``; returns a number, or None where it cannot say.
        renderer: The renderer that the episodes are made with.
        concurrency: Calls of an ``async`` function in flight at once.
        deadline: Seconds for all turns of one iteration together.
    """

    def __init__(
        self,
        function: Callable[[str, str], Any],
        renderer: Renderer,
        *,
        concurrency: int = 32,
        deadline: float = 600.0,
    ) -> None:
        if concurrency < 1:
            raise RewardError(f"concurrency={concurrency}: at least one call has to be in flight")
        self.function = function
        self.reader = Reader(renderer)
        self.concurrency = concurrency
        self.deadline = deadline

    def __call__(self, episodes: list[Episode]) -> list[NDArray[np.float64]]:
        """Per episode (n_turns,).

        Raises:
            RewardError: the function raised, hung, or returned something that is neither a number nor None.
        """
        who = f"reward function {name_of(self.function)!r}"
        turns = [(i, t) for i, episode in enumerate(episodes) for t in range(len(episode.turns))]
        paid = [np.zeros(len(episode.turns)) for episode in episodes]
        if not turns:
            return paid
        answers = within(self.deadline, lambda: self._all(episodes, turns, who), who)
        for (i, t), value in zip(turns, answers, strict=True):
            paid[i][t] = number(value, who, f"turn {t} of {where(episodes[i])}")
        return paid

    def _all(self, episodes: list[Episode], turns: Sequence[tuple[int, int]], who: str) -> Any:
        """Every answer, or a coroutine that gathers them. An ordinary function runs outside of any event loop."""
        answers = []
        for i, t in turns:
            with _blaming(who, t, episodes[i]):
                answers.append(
                    self.function(self.reader.observation(episodes[i], t), self.reader.action(episodes[i], t))
                )
        if not any(inspect.isawaitable(answer) for answer in answers):
            return answers
        free = asyncio.Semaphore(self.concurrency)

        async def one(answer: Any, i: int, t: int) -> Any:
            async with free:
                with _blaming(who, t, episodes[i]):
                    return await answer if inspect.isawaitable(answer) else answer

        async def gathered() -> list[Any]:
            return await asyncio.gather(*(one(answer, i, t) for answer, (i, t) in zip(answers, turns, strict=True)))

        return gathered()


@contextmanager
def _blaming(who: str, turn: int, episode: Episode) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise RewardError(
            f"{who} raised {type(error).__name__}: {error}, at turn {turn} of {where(episode)}"
        ) from error


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _opening(prompt: str) -> list[dict[str, str]]:
    return list(map(dict, prompt.messages)) if isinstance(prompt, Conversation) else [_message("user", prompt)]


def _messages(observations: Sequence[str], actions: Sequence[str]) -> list[dict[str, str]]:
    """The dialogue after the prompt: the first action, then each observation with the action that answered it."""
    messages = [_message("assistant", actions[0])]
    for observation, action in zip(observations[1:], actions[1:], strict=True):
        messages += [_message("user", observation), _message("assistant", action)]
    return messages
