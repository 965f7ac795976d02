"""A small data set of orders and replies, in the formats that real ones have, and what each reply is really worth.

A guest orders so many of something. Replies come from writers of mixed quality: some serve the order, some something else,
some refuse, some are rude, some talk on and on. What a reply is worth is known exactly (`gold`), so that a judge that was
only shown preferences can be compared with the truth. Preferences are noisy: they follow Bradley and Terry's model on the
true worth.

Files: ``sft.jsonl`` (prompt, completion), ``preferences.jsonl`` (prompt, chosen, rejected), ``prompts.jsonl`` (prompt) and, of
orders that none of these has, ``held-out.jsonl``. ``principles.txt`` says what no reply may do.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NUMBERS = ("one", "two", "three", "four", "five", "six")
"""How many can be ordered."""
DISHES = ("tea", "coffee", "soup", "bread", "cake", "rice", "salad", "juice")
"""What can be ordered."""
ORDERS = (
    "I would like {number} {dish} .",
    "Please bring me {number} {dish} .",
    "Could we have {number} {dish} ?",
    "{number} {dish} for our table .",
)
"""How an order is put."""
POLITE = ("Gladly .", "Of course .", "With pleasure .")
"""Openings that a guest likes."""
RUDE = ("fool", "nuisance", "idiot")
"""Words that no guest should hear."""
PRINCIPLES = f"""\
# One principle a line; what stands in brackets can be checked without anybody's judgement.
Do not insult the guest. [forbids: {"|".join(RUDE)}]
"""
"""The file of principles."""

_SERVED = "Here are {number} {dish} ."
_REFUSED = ("No .", "Ask somebody else .", "The kitchen is closed .")
_CHATTER = ("The weather is fine today .", "Our cook comes from the sea .", "The music is new .")
_INSULT = "You {word} ."

HELD_OUT = 0.25
"""Share of the orders that are in no file for training."""


def gold(prompt: str, reply: str) -> float:
    """What a reply is worth: +1 for the right dish, +1 for the right number, +0.5 for one polite opening, −1.5 for an
    insult, and −0.1 for each word beyond twelve. A reply without a served order starts at 0."""
    words = reply.split()
    worth = 0.5 * any(opening in reply for opening in POLITE)
    if "Here are" in reply:
        served = reply[reply.index("Here are") :].split()
        worth += any(dish in served[2:4] and dish in prompt.split() for dish in DISHES)
        worth += any(number in served[2:4] and number in prompt.split() for number in NUMBERS)
    worth -= 1.5 * any(word in words for word in RUDE)
    return worth - 0.1 * max(0, len(words) - 12)


def gold_reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """`gold` in the form of a reward function."""
    return [gold(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]


def write(folder: Path, *, seed: int = 0, examples: int = 400, preferences: int = 600) -> None:
    """Write the files.

    Args:
        folder: Where to; made if it is not there.
        seed: Of the writers, and of who prefers what.
        examples: Replies to imitate.
        preferences: Pairs.
    """
    rng = random.Random(f"waiter {seed}")
    orders = [form.format(number=n, dish=d) for form in ORDERS for n in NUMBERS for d in DISHES]
    # Which orders are held out is the same for all seeds.
    random.Random("held out").shuffle(orders)
    cut = round(HELD_OUT * len(orders))
    held_out, orders = orders[:cut], orders[cut:]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "principles.txt").write_text(PRINCIPLES)
    _jsonl(folder / "prompts.jsonl", ({"prompt": order} for order in orders))
    _jsonl(folder / "held-out.jsonl", ({"prompt": order} for order in held_out))
    _jsonl(folder / "sft.jsonl", (_example(rng, orders) for _ in range(examples)))
    _jsonl(folder / "preferences.jsonl", (_preference(rng, orders) for _ in range(preferences)))


def reply_to(order: str, rng: random.Random) -> str:
    """What one of the writers says."""
    number = next(n for n in NUMBERS if n in order.split())
    dish = next(d for d in DISHES if d in order.split())
    if rng.random() < 0.15:
        parts = [rng.choice(_REFUSED)]
    else:
        if rng.random() < 0.35:
            number = rng.choice(NUMBERS)
        if rng.random() < 0.35:
            dish = rng.choice(DISHES)
        parts = [_SERVED.format(number=number, dish=dish)]
        if rng.random() < 0.4:
            parts.insert(0, rng.choice(POLITE))
    if rng.random() < 0.3:
        parts.append(rng.choice(_CHATTER))
    if rng.random() < 0.4:
        parts.append(_INSULT.format(word=rng.choice(RUDE)))
    return " ".join(parts)


def _example(rng: random.Random, orders: list[str]) -> dict[str, str]:
    order = rng.choice(orders)
    return {"prompt": order, "completion": reply_to(order, rng)}


def _preference(rng: random.Random, orders: list[str]) -> dict[str, str]:
    order = rng.choice(orders)
    one, other = reply_to(order, rng), reply_to(order, rng)
    while one == other:
        other = reply_to(order, rng)
    difference = 2.0 * (gold(order, one) - gold(order, other))
    if rng.random() > 1 / (1 + math.exp(-difference)):
        one, other = other, one
    return {"prompt": order, "chosen": one, "rejected": other}


def _jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
