"""The errors with which a verb can fail, each with an exit code."""

NEXT = ". Next: "
"""The text between a message and its next step."""


class StackError(Exception):
    """An expected failure: one line with the cause and the next step.

    `tail` contains the last lines of a log, or is empty.
    """

    code = 1

    def __init__(self, message: str, tail: str = "", *, next_step: str = "") -> None:
        super().__init__(f"{message}{NEXT}{next_step}" if next_step else message)
        self.message = message
        self.tail = tail
        self.next_step = next_step


class FailedError(StackError):
    """The verb failed, and its changes were undone."""


class RefusedError(StackError):
    """The verb was refused before the verb changed anything."""

    code = 2


class LockedError(StackError):
    """Another run holds the lock."""

    code = 3


class PersonNeededError(StackError):
    """The verb is done but incomplete, or could not be undone. A person must decide what to do."""

    code = 4
