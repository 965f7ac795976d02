"""What decoders are held to: contexts that grow at random, and the model's own forward on each of them from its beginning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnwise.models import Decoder, Feed


def feed(rows: list[tuple[int, list[int], int, bool]]) -> Feed:
    """A feed of (slot, the whole context as read after it, how much the slot holds already, wanted)."""
    return Feed(
        slots=np.array([slot for slot, *_ in rows]),
        read=np.array([read for _, _, read, _ in rows]),
        counts=np.array([len(context) - read for _, context, read, _ in rows]),
        ids=np.array([i for _, context, read, _ in rows for i in context[read:]]),
        wanted=np.array([wanted for *_, wanted in rows]),
    )


def own_logits(model: Any, context: list[int]) -> Tensor:
    """(V,) what the model's own forward says may follow."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([context]), use_cache=False).logits[0, -1]
    model.set_attn_implementation(implementation)
    return logits


class Contexts:
    """Slots that hold contexts, of which each pass grows, drops, copies and begins some at random.

    Args:
        decoder: Under test.
        model: Whose forward is the truth.
        slots: Of the decoder.
        words: Ids are below this.
        longest: No context grows beyond this.
        alike: Contexts begin as others do and are never cut short; else most do, and some are.
    """

    def __init__(
        self, decoder: Decoder, model: Any, slots: int, *, words: int, longest: int, alike: bool = False, seed: int = 0
    ) -> None:
        self.decoder = decoder
        self.model = model
        self.words = words
        self.longest = longest
        self.alike = alike
        self.rng = np.random.default_rng(seed)
        self.held: list[list[int]] = [[] for _ in range(slots)]
        self.stems = [self.new(12) for _ in range(2)]

    def new(self, n: int) -> list[int]:
        """Random ids."""
        return self.rng.integers(0, self.words, n).tolist()

    def step(self, *, look: bool = True) -> float:
        """One pass; the largest difference of a logit from the truth, relative to the largest logit if that is above 1.

        Args:
            look: Compute the truth.
        """
        rng, rows = self.rng, list[tuple[int, list[int], int, bool]]()
        for slot in rng.permutation(len(self.held))[: rng.integers(1, len(self.held) + 1)].tolist():
            before = self.held[slot]
            if len(before) > self.longest - 20 or rng.random() < 0.1:
                before = []
            elif before and not self.alike and rng.random() < 0.2:
                before = before[: rng.integers(0, len(before) + 1)]
            more = self.new(1 if rng.random() < 0.6 else int(rng.integers(1, 20)))
            if not before and (self.alike or rng.random() < 0.7):
                stem = self.stems[int(rng.integers(2))]
                more = stem[: 12 if self.alike else int(rng.integers(1, 13))] + more[: rng.integers(0, len(more) + 1)]
            self.held[slot] = before + more
            rows.append((slot, self.held[slot], len(before), bool(rng.random() < 0.8)))
        said = self.decoder.advance(feed(rows))
        wanted = [context for _, context, _, wanted in rows if wanted]
        assert said.dtype == torch.float32
        assert len(said) == len(wanted)
        worst = 0.0
        for mine, context in zip(said, wanted if look else [], strict=look):
            truth = own_logits(self.model, context)
            worst = max(worst, float((mine - truth).abs().max()) / max(1.0, float(truth.abs().max())))
        if rng.random() < 0.2:
            source, target = rng.permutation(len(self.held))[:2].tolist()
            length = int(rng.integers(0, len(self.held[source]) + 1))
            self.decoder.copy(source, target, length)
            self.held[target] = self.held[source][:length]
        return worst

    def forget(self) -> None:
        """The weights have changed."""
        self.decoder.refresh()
        self.held = [[] for _ in self.held]
