"""The other side of the speed benchmark: TRL's own training loop takes the steps, in as many turns and with as many tokens as the
case says, so that the two sides do the same work."""

from __future__ import annotations

import pytest

from tests.parity.trl import needs_trl, quiet
from tests.recipes.test_speed import SMALL, steps
from turnwise.recipes.speed import theirs

pytestmark = needs_trl


@pytest.mark.parametrize("name", ["grpo", "turns", "sft", "dpo", "reward-model"])
def test_their_side_does_what_the_case_says(name: str) -> None:
    given = SMALL[name]
    with quiet():
        told = steps(theirs.run, given, 2)
    assert len(told) == 2
    for answer in told:
        counts = answer["counts"]
        assert (counts["tokens"], counts["rows"]) == (given.tokens, given.rows)
        assert counts.get("sampled", 0) == given.sampled


def test_generate_samples_as_many_tokens_as_our_engine() -> None:
    given = SMALL["decode"]
    (answer,) = steps(theirs.run, given)
    assert answer["counts"] == {"tokens": given.tokens, "sampled": given.sampled, "rows": given.rows}
