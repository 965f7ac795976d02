"""Models by name: whether the Hugging Face hub can be asked at all."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

SIZES = ("tiny", "small")
"""Models from scratch; the names of `turnwise.models.SIZES`, which would load torch."""


def offline_if_unreachable(model: str) -> None:
    """If `model` may be on the hub and nobody knows the hub's address, take what is on this machine.

    The hub's client would try for most of a minute, with a warning for each attempt, before it says so. It reads the
    variable when it is imported, so this has to come before the first model is loaded.
    """
    behind_proxy = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    if model in SIZES or Path(model).exists() or behind_proxy or os.environ.get("HF_HUB_OFFLINE"):
        return
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        log.warning("%s cannot be reached (%s); looking for %r on this machine only", host, error.strerror, model)
        os.environ["HF_HUB_OFFLINE"] = "1"
