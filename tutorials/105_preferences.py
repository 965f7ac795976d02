"""105. From preferences to a policy in two ways: through a reward model and PPO, and directly with DPO.

Data is files with the usual columns. Each stage is a run of its own, so each can be resumed, evaluated and looked at; a
stage's model is a Hugging Face folder that the next one begins with.

    python tutorials/105_preferences.py
"""

import os
import tempfile
from pathlib import Path

import turnwise
from turnwise.recipes import waiter

STEPS = int(os.environ.get("TUTORIAL_STEPS", "40"))  # the tests run one iteration to see that it works

if __name__ == "__main__":
    home = Path(tempfile.mkdtemp(prefix="turnwise-preferences-"))
    waiter.write(home, examples=1500, preferences=2000)  # sft.jsonl, preferences.jsonl, prompts.jsonl, held-out.jsonl
    gold = "turnwise.recipes.waiter:gold_reward"  # what a reply is really worth, at most 2.5; nobody trains on it
    reply = {"max_tokens": 32, "progress": False}

    sft = turnwise.train(
        algorithm="sft", data=str(home / "sft.jsonl"), steps=9 * STEPS, lr=2e-3, out=home / "sft", **reply
    )
    start = str(home / "sft" / "final")
    judge = turnwise.train(
        algorithm="reward-model", data=str(home / "preferences.jsonl"), held_out=0.1, model=start, steps=4 * STEPS, lr=1e-3,
        out=home / "reward-model", **reply,
    )  # fmt: skip
    for figure, value, remark in judge.evaluate().rows():
        print(f"  {figure}: {value}  {remark}")

    ppo = turnwise.train(
        algorithm=turnwise.PPO(kl_coef=0.2, minibatch=32, reward_scale=0.3), data=str(home / "prompts.jsonl"),
        reward=str(home / "reward-model"), model=start, steps=STEPS, lr=1e-3, out=home / "ppo", **reply,
    )  # fmt: skip
    dpo = turnwise.train(
        algorithm=turnwise.DPO(beta=0.3), data=str(home / "preferences.jsonl"), model=start, steps=3 * STEPS, lr=5e-4,
        out=home / "dpo", **reply,
    )  # fmt: skip
    for name, trained in (("sft", sft), ("ppo", ppo), ("dpo", dpo)):
        asked = turnwise.load(trained.folder, data=str(home / "held-out.jsonl"), reward=gold)
        print(f"{name}: {asked.evaluate(256)}")
