"""What the audit says to people who gave it something it cannot use."""

from turnwise.errors import TurnwiseError


class AuditError(TurnwiseError):
    """Evidence, a card or a name that the audit cannot use; the message has the remedy."""
