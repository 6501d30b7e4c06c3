"""The expected ends of a verb, each with its exit code of the contract."""


class StackError(Exception):
    """One line with the cause and the next step; `tail` holds the last lines of a log, where there is one."""

    code = 1

    def __init__(self, message: str, tail: str = "") -> None:
        super().__init__(message)
        self.tail = tail


class FailedError(StackError):
    """Failed, and undone."""


class RefusedError(StackError):
    """Refused: nothing was changed."""

    code = 2


class LockedError(StackError):
    """Somebody else is at work."""

    code = 3


class PersonNeededError(StackError):
    """What was asked for is done or can't be; somebody has to look."""

    code = 4
