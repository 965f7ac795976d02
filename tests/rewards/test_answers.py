"""Final answers: (1) what is written in the reasoning channel leaves them as they are, (2) the forms and their order."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnwise.rewards import RewardError
from turnwise.rewards.answers import ORDER, extract_answer, text_of
from turnwise.rewards.verifiers import exact, numeric, symbolic
from turnwise.text.reasoning import after_reasoning

PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>9</answer>",
        "<answer>",
        "</answer>",
        "\\boxed{9}",
        "\\boxed{",
        "}",
        "#### 9",
        "####",
        *("the answer is 9", "9", "\n", "<", "</", "think>", "</thin", "<tool_call>", "```", "�", " "),
    ]
)
REASONING = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=12).map("".join))
ANSWERED = st.sampled_from(
    [
        "7",
        "<answer>7</answer>",
        "so \\boxed{7}.",
        "2 + 5\n#### 7",
        "The answer is 7.",
        "",
        "I do not know",
        "\\boxed{",
        "# 7",
    ]
)


@given(REASONING, REASONING, ANSWERED)
@example("", "</think><answer>9</answer><think>", "7")
@example("a", "<think><think>", "<answer>7</answer>")
def test_reasoning_leaves_answer_and_reward_as_they_are(one: str, other: str, answered: str) -> None:
    texts = [f"<think>{reasoning}</think>{answered}" for reasoning in (one, other)]
    assert extract_answer(texts[0]) == extract_answer(texts[1]) == extract_answer(answered)
    for verifier in (exact, numeric, symbolic):
        scores = verifier(completions=[*texts, answered], answer=["7", "7", "7"])
        assert scores[0] == scores[1] == scores[2]


@given(
    REASONING, st.text(alphabet="ab</>", max_size=12).filter(bool), st.text(alphabet="ab</>", max_size=12).filter(bool)
)
def test_with_any_tags(reasoning: str, opening: str, closing: str) -> None:
    tags = (opening, closing)
    plain, written = (after_reasoning(f"{opening}{text}{closing} so 7", tags) for text in ("", reasoning))
    assert plain == written or closing in f"{closing} so 7"[1:]


@given(REASONING)
def test_reasoning_that_never_ends_has_no_answer(reasoning: str) -> None:
    assert extract_answer(f"<think>x</think>#### 7 <think>{reasoning.replace('</think>', '')}") is None


def test_a_closing_tag_alone_ends_reasoning_that_the_prompt_began() -> None:
    assert extract_answer("the answer is 3</think>the answer is 4") == "4"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer> 5 </answer>", "5"),
        ("<answer>4</answer> no, <answer>5</answer>", "5"),
        ("<answer>5", None),
        ("so \\boxed{\\frac{1}{2}} holds", "\\frac{1}{2}"),
        ("\\boxed{1} or \\boxed{2}", "2"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\fbox{3}", "3"),
        ("\\boxed{3", None),
        ("3 * 24 = 72\n#### 72\n", "72"),
        ("#### 1\n#### 2\nbye", "2"),
        ("The answer is 3.5. Good.", "3.5"),
        ("The answer is: yes", "yes"),
        ("Answer: 12", "12"),
        ("it is 5", None),
        ("", None),
        ("<answer></answer>", None),
        ("<answer>1</answer> \\boxed{2} #### 3", "1"),
        ("\\boxed{2} #### 3", "2"),
        ("the answer is 4 #### 3", "3"),
    ],
)
def test_forms_and_their_order(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


def test_the_order_is_ones_own_choice() -> None:
    assert extract_answer("\\boxed{2} #### 3", order=("hashes", "boxed")) == "3"
    assert extract_answer(" five ", order=(*ORDER, "whole")) == "five"
    assert extract_answer("<answer>5</answer>", order=("boxed",)) is None
    with pytest.raises(RewardError, match=r"called 'box'; there are tag, boxed"):
        extract_answer("", order=("box",))


def test_a_completion_is_text_or_messages() -> None:
    messages = [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "b"},
    ]
    assert text_of("a") == "a"
    assert text_of(messages) == "a\nb"
    with pytest.raises(RewardError, match="a completion is 5"):
        text_of(5)
