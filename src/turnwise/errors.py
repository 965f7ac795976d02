"""The one exception that every user-facing error inherits from."""


class TurnwiseError(Exception):
    """An error whose message is meant for the person at the keyboard.

    The message says what was wrong, where, and what to do about it; the command line prints it
    without a traceback. Every exception that turnwise raises on purpose for a user derives from it.
    A bug inside turnwise is not one of these and keeps its traceback.
    """
