"""Decoders: (1) whatever is read in whatever pieces, logits are those of the model's own forward; (2) idle slots, shared
beginnings, copies and growth change nothing; (3) what does not fit in memory is refused with what would."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.models import decoding, zoo
from turnwise.models import CachedDecoder, RecomputeDecoder


@pytest.mark.parametrize("kind", [CachedDecoder, RecomputeDecoder])
@pytest.mark.parametrize("name", ["llama, grouped queries", "gpt neox"])
def test_any_pieces_in_any_company_give_the_models_own_logits(
    name: str, kind: Callable[..., CachedDecoder | RecomputeDecoder]
) -> None:
    policy = zoo.policy(zoo.PACKED[name])
    contexts = decoding.Contexts(kind(policy, 6), policy.model, 6, words=zoo.V, longest=200)
    assert max(contexts.step() for _ in range(60)) < 2e-5
