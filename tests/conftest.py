"""What holds for every test: products take PyTorch's own route, so that no test writes into the user's cache."""

from __future__ import annotations

import os

os.environ["TURNWISE_ROUTE"] = "plain"
