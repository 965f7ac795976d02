"""A model that is asked for its opinion, as a reward: one question per episode, by a template that a person can edit.

`Judge` reads the opinion off what the model writes, so the model may be behind an address. `ModelJudge` reads it off the
probabilities of the words of a model in this process: cheaper, graded, and never nonsense.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from turnwise.engines.base import EngineError
from turnwise.engines.chat import Chat, Message
from turnwise.episode import Episode
from turnwise.models import Policy
from turnwise.models.choices import choice_log_probs
from turnwise.rewards.reward import RewardError, where
from turnwise.text import Reader, Renderer
from turnwise.text.reasoning import after_reasoning
from turnwise.text.template import check_template, fill, read_template

PRINCIPLE = "A good answer is correct, helpful, honest and harmless."
"""What a judge judges by unless it is told otherwise."""

GAPS = ("prompt", "completion", "principle")
"""The gaps that a judge's template may have; it must have ``{completion}``."""

log = logging.getLogger(__name__)

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_AGAIN = {
    "rating": "Write 'Rating: ' and one number from 0 to 10, and nothing else.",
    "yes-no": "Write nothing but yes or no.",
}
_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def parse_rating(text: str) -> float | None:
    """The rating in a judge's answer, from 0 to 10, as a share from 0 to 1; None if there is none, or two different ones.

    A number after "rating" or "score" counts before any other, and "7/10" is 7. Reasoning in think tags is skipped.
    """
    part = after_reasoning(text)
    if part is None:
        return None
    part = re.sub(r"(?<=\d)\s*/\s*10\b|\bout of (?:10|ten)\b", "", part)
    named = re.findall(r"(?:rating|score)\W{0,10}?(?:is\W{0,4}?)?([-+]?\d+(?:\.\d+)?)", part, re.IGNORECASE)
    found = {float(number) for number in (named or _NUMBER.findall(part))}
    if len(found) != 1:
        return None
    (rating,) = found
    return rating / 10 if 0 <= rating <= 10 else None


def parse_yes_no(text: str) -> float | None:
    """1 for yes, 0 for no, as a judge wrote it; None if it wrote neither, or both. Reasoning in think tags is skipped."""
    part = after_reasoning(text)
    found = {word.lower() for word in _YES_NO.findall(part or "")}
    return float(found == {"yes"}) if len(found) == 1 else None


class _Questions:
    """What a judge asks about each episode."""

    def __init__(self, renderer: Renderer, template: str | Path | None, default: str, principle: str) -> None:
        self.reader = Reader(renderer)
        self.template = read_template(template, "turnwise.rewards", default)
        self.principle = principle
        check_template(self.template, ["completion"], GAPS, f"the judge's template {str(template or default)!r}")

    def about(self, episode: Episode) -> list[Message]:
        """The question about one episode; the actions of several turns stand on a line each."""
        said = self.reader.transcript(episode)
        fields = {
            "prompt": said.observations[0],
            "completion": "\n".join(said.actions),
            "principle": self.principle,
        }
        return [{"role": "user", "content": fill(self.template, fields)}]


class Judge:
    """Pays at the last turn what a model writes about the episode: a rating from 0 to 10 as a share, or yes (1) and no (0).

    After an answer without an opinion it is asked once more, and told in which form; if that has none either, the turn is NaN.

    Args:
        chat: Whom to ask: an `Endpoint`, or a `LocalChat`.
        renderer: The renderer that the episodes are made with.
        principle: What to judge by, in words; fills ``{principle}``.
        answers: "rating" or "yes-no": what the template asks for.
        template: A text file with the gaps ``{prompt}``, ``{completion}`` and ``{principle}``; a short one by default.

    Attributes:
        asked: Questions put so far, those asked twice counted twice.
        unscorable: Episodes that got no opinion so far.

    Raises:
        RewardError: another kind of answer.
        TemplateError: a template that cannot be read, or does not have ``{completion}``.
    """

    def __init__(
        self,
        chat: Chat,
        renderer: Renderer,
        *,
        principle: str = PRINCIPLE,
        answers: Literal["rating", "yes-no"] = "rating",
        template: str | Path | None = None,
    ) -> None:
        parsers: dict[str, Callable[[str], float | None]] = {"rating": parse_rating, "yes-no": parse_yes_no}
        if answers not in parsers:
            raise RewardError(f"answers={answers!r}; a judge is asked for 'rating' or 'yes-no'")
        self.chat = chat
        self.parse = parsers[answers]
        self.again = _AGAIN[answers]
        self.questions = _Questions(renderer, template, f"{answers.replace('-', '_')}.txt", principle)
        self.asked = 0
        self.unscorable = 0

    def __call__(self, episodes: list[Episode]) -> list[NDArray[np.float64]]:
        """Per episode (n_turns,): zeros, and the opinion at the last turn.

        Raises:
            RewardError: nobody answers, or more than half of the episodes got no opinion.
        """
        paid = [np.zeros(len(episode.turns)) for episode in episodes]
        turns = [i for i, episode in enumerate(episodes) if episode.turns]
        questions = {i: self.questions.about(episodes[i]) for i in turns}
        opinions: dict[int, float] = {}
        heard = ""
        for _ in range(2):
            left = [i for i in turns if i not in opinions]
            if not left:
                break
            answers = self.chat.complete_all([questions[i] for i in left])
            self.asked += len(left)
            failed = [answer for answer in answers if isinstance(answer, EngineError)]
            if len(failed) == len(left) and not opinions:
                raise RewardError(f"the judge gives no answer: {failed[0]}. Nothing was trained; resume when it does")
            for i, answer in zip(left, answers, strict=True):
                opinion = None if isinstance(answer, EngineError) else self.parse(answer)
                if opinion is not None:
                    opinions[i] = opinion
                    continue
                heard = str(answer)
                if not isinstance(answer, EngineError):
                    (question,) = self.questions.about(episodes[i])
                    questions[i] = [{**question, "content": f"{question['content']}\n\n{self.again}"}]
        for i in turns:
            paid[i][-1] = opinions.get(i, math.nan)
        missing = [i for i in turns if i not in opinions]
        self.unscorable += len(missing)
        if missing:
            complain(
                len(missing), len(turns), f"to the one about {where(episodes[missing[-1]])} it said {heard!r:.200}"
            )
        return paid


class ModelJudge:
    """Pays at the last turn P(yes) / (P(yes) + P(no)), as a model in this process would begin its answer.

    Args:
        judge: The model; it is read and never trained here.
        renderer: The renderer that the *episodes* are made with; the judge has its own.
        principle: What to judge by; fills ``{principle}``.
        words: The word that speaks for the answer and the one that speaks against it.
        template: A text file with the gaps ``{prompt}``, ``{completion}`` and ``{principle}``; a short one by default.

    Raises:
        TurnwiseError: two words that the judge's tokenizer cannot tell apart.
        TemplateError: a template that cannot be read, or does not have ``{completion}``.
    """

    def __init__(
        self,
        judge: Policy,
        renderer: Renderer,
        *,
        principle: str = PRINCIPLE,
        words: tuple[str, str] = ("yes", "no"),
        template: str | Path | None = None,
    ) -> None:
        self.judge = judge
        self.words = words
        self.questions = _Questions(renderer, template, "yes_no.txt", principle)
        choice_log_probs(judge, [], words)  # refuses words that it cannot tell apart
        self.unscorable = 0

    def __call__(self, episodes: list[Episode]) -> list[NDArray[np.float64]]:
        """Per episode (n_turns,): zeros, and the share of "yes" at the last turn; NaN where the judge cannot read it all.

        Raises:
            RewardError: more than half of the questions are longer than what the judge can read.
        """
        paid = [np.zeros(len(episode.turns)) for episode in episodes]
        turns = [i for i, episode in enumerate(episodes) if episode.turns]
        logp = choice_log_probs(self.judge, [self.questions.about(episodes[i]) for i in turns], self.words)
        # σ(log P(yes) − log P(no)), which neither over- nor underflows.
        share = 0.5 * (1.0 + np.tanh(0.5 * (logp[:, 0] - logp[:, 1])))
        for i, value in zip(turns, share, strict=True):
            paid[i][-1] = value
        missing = int(np.isnan(share).sum())
        self.unscorable += missing
        if missing:
            limit = self.judge.context_limit
            complain(missing, len(turns), f"its context holds {limit} tokens, and the questions are longer")
        return paid


def complain(missing: int, asked: int, why: str) -> None:
    """Warn that some episodes could not be judged; refuse to go on when it is more than half of them.

    Raises:
        RewardError: more than half.
    """
    if 2 * missing > asked:
        raise RewardError(
            f"the judge gave no usable opinion on {missing} of {asked} episodes: {why}. Nothing was trained; try its "
            "template on a few answers, or choose another judge"
        )
    log.warning("the judge gave no usable opinion on %d of %d episodes: %s", missing, asked, why)
