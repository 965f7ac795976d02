"""The credit quantities: every known answer."""

from __future__ import annotations

import pytest

from turnwise.audit.credit_reach import QUANTITIES
from turnwise.audit.quantity import Quantity
from turnwise.testing import check_measure


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda q: q.name)
def test_known_answers(quantity: Quantity) -> None:
    check_measure(quantity.measure, quantity.controls())
