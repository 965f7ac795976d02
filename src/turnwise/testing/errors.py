"""What a conformance check says when a promise is broken."""

from turnwise.errors import TurnwiseError


class CheckFailed(TurnwiseError):  # noqa: N818 -- the name of what happened
    """A class or function breaks the contract of its interface; the message names what, where and the remedy."""
