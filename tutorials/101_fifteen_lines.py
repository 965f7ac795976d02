"""101. A world, a model from scratch, and reinforcement learning, in fifteen lines.

The world is a coroutine: `await agent.act(...)` says something and waits for the answer, `agent.reward(...)` pays for it.
The model has to find out by itself that asking for the middle is a good idea; it starts by guessing at random.

    python tutorials/101_fifteen_lines.py        about a minute and a half
"""

import os

STEPS = int(os.environ.get("TUTORIAL_STEPS", "60"))  # the tests run one iteration to see that it works

# [README
import turnwise
from turnwise.envs import parse_int


@turnwise.env(max_turns=5, actions=[str(n) for n in range(1, 17)])
async def guess(agent, rng):
    secret, hint = rng.randint(1, 16), "Guess my number between 1 and 16."
    while True:
        n = parse_int(await agent.act(hint))
        agent.reward(1.0 if n == secret else -0.02)
        agent.log(success=float(n == secret))
        if n == secret:
            return
        hint = "higher" if n is not None and n < secret else "lower"


if __name__ == "__main__":
    ppo = turnwise.PPO(gamma=0.9, episodes=256, epochs=4, minibatch=512, reward_scale=1.0)
    trained = turnwise.train(guess, ppo, demonstrations=300, skill=0, lr=2e-3, steps=STEPS)
    print(trained.evaluate())
# README]
