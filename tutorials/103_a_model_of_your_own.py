"""103. A model from a folder, a LoRA adapter, and back to Hugging Face.

Any causal language model with a tokenizer will do; give its folder or hub id as an argument. Without one, this tutorial makes
a small one first, so that it runs anywhere.

    python tutorials/103_a_model_of_your_own.py [MODEL]
"""

import os
import sys
import tempfile
from pathlib import Path

import turnwise

STEPS = int(os.environ.get("TUTORIAL_STEPS", "20"))  # the tests run one iteration to see that it works

if __name__ == "__main__":
    work = Path(tempfile.mkdtemp())
    model = sys.argv[1] if len(sys.argv) > 1 else ""
    if not model:
        cloned = turnwise.train(
            "FrozenLake-v1?is_slippery=false", turnwise.SFT(), memory=0, demonstrations=100, skill=0.3, steps=STEPS
        )
        cloned.save(work / "start")
        model = str(work / "start")

    trained = turnwise.train(
        "FrozenLake-v1?is_slippery=false",
        turnwise.Reinforce(),
        model=model,
        lora=8,
        lr=2e-3,
        memory=0,
        max_tokens=8,
        steps=STEPS,
    )
    print(trained.evaluate(256))

    # The adapter is merged into an ordinary folder, which knows nothing of us.
    trained.save(work / "trained")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "trained")
    network = AutoModelForCausalLM.from_pretrained(work / "trained")
    observation, _ = trained.env.make().reset(seed=0)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": observation}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    reply = network.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    print(f"{observation}\n-> {tokenizer.decode(reply, skip_special_tokens=True)}")
