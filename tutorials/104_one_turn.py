"""104. One turn and a judge: what is usually called RLHF, on the same loop.

The world asks for something and ends after the reply; a judge pays. Nothing else differs from a world of a hundred turns: the
same collector, the same credit (which has nothing to reach back over), the same surrogate.

    python tutorials/104_one_turn.py
"""

import os

import turnwise
from turnwise.envs import PromptEnv

STEPS = int(os.environ.get("TUTORIAL_STEPS", "30"))  # the tests run one iteration to see that it works

PROMPTS = [{"prompt": f"say a number larger than {n}", "n": n} for n in range(10, 70)]
ASKED, HELD_OUT = [row for row in PROMPTS if row["n"] % 4], [row for row in PROMPTS if not row["n"] % 4]


def judge(prompt: str, completion: str, row: dict) -> float:
    """1 for a number that is larger, and a little for any number at all."""
    return 0.1 + 0.9 * (int(completion) > row["n"]) if completion.isdigit() else 0.0


class Numbers(PromptEnv):
    """The prompts above, with numbers as examples of replies for the tokenizer and for demonstrations."""

    def __init__(self, rows: list[dict] = ASKED) -> None:
        super().__init__(rows, judge)

    def legal_actions(self) -> tuple[str, ...]:
        return tuple(str(n) for n in range(10, 100))


if __name__ == "__main__":
    for name in ("rloo", "reinforce", "ppo"):
        trained = turnwise.train(Numbers, name, demonstrations=300, skill=0, max_tokens=4, steps=STEPS)
        # Its seed chooses the prompt, so prompts to hold out are for you to choose.
        print(f"{name}: {trained.evaluate(256, env=lambda: Numbers(HELD_OUT))}")
