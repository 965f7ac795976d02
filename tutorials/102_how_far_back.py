"""102. How far back a reward reaches decides what is learnt.

In the errand world an agent is paid about 8 for bringing a gem to a guard, which takes about eight turns, and 0.1 at once for a
joke. The same model, the same demonstrations, the same number of episodes: with γ = 0 the update sees one turn and
learns to joke for ever (return 3.0); with γ = 0.99 it learns the errand (optimum 7.9).

    python tutorials/102_how_far_back.py        about two minutes
"""

import os

import turnwise

STEPS = int(os.environ.get("TUTORIAL_STEPS", "30"))  # the tests run one iteration to see that it works

if __name__ == "__main__":
    for gamma in (0.0, 0.99):
        # memory=0: the observation says everything, so every turn is a context of its own.
        trained = turnwise.train(
            "errand", turnwise.PPO(gamma=gamma), memory=0, max_tokens=5, demonstrations=300, skill=0.2, steps=STEPS
        )
        print(f"gamma {gamma}: {trained.evaluate(256)}")
        # Look at one episode, turn by turn.
        for turn in trained.rollouts(1)[0].turns[:10]:
            say = trained.policy.renderer
            print(f"  {say.text(turn.obs)}  ->  {say.action_text(turn.act)}  ({turn.reward:+.2f})")
