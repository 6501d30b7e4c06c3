"""The ways in which a verb can fail, each with its exit code."""


class StackError(Exception):
    """An expected failure: one line with the cause and the next step. `tail` has the last lines of a log, if any."""

    code = 1

    def __init__(self, message: str, tail: str = "") -> None:
        super().__init__(message)
        self.tail = tail


class FailedError(StackError):
    """The verb failed, and its changes were undone."""


class RefusedError(StackError):
    """The verb was refused before it changed anything."""

    code = 2


class LockedError(StackError):
    """Another run holds the lock."""

    code = 3


class PersonNeededError(StackError):
    """The verb is done but incomplete, or could not be undone. A person has to look."""

    code = 4
