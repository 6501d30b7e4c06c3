"""A table of steps, the whole story of a release, a restore or a backup: carried out in order, undone backwards."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

from stackctl.core.context import Context
from stackctl.core.errors import FailedError, PersonNeededError, StackError


class Work(Protocol):
    """What the steps of one run hand on."""

    @property
    def stack(self) -> Context:
        """What it works with."""


class Lasting(Work, Protocol):
    """Of steps that can be undone up to one of them."""

    @property
    def lasts(self) -> str:
        """What stays as it is, should a step fail now, in words; empty while all can be undone."""

    @property
    def serving(self) -> str:
        """What serves once all is undone, in words."""

    @property
    def remedy(self) -> str:
        """The command that goes on with it, once the cause is gone."""


W = TypeVar("W")
L = TypeVar("L", bound=Lasting)


class Step(NamedTuple, Generic[W]):
    """`act` returns what it has to say; `undo` takes back what it may have done, be it half of it."""

    name: str
    what: str
    act: Callable[[W], str]
    undo: Callable[[W], None] | None = None


def take(stack: Context, work: W, steps: Sequence[Step[W]]) -> None:
    """One after the other, in the journal. What fails ends it."""
    for step in steps:
        stack.journal.step(step.name, partial(step.act, work), step.what)


def carry_out(work: L, steps: Sequence[Step[L]], begun: Sequence[Step[L]] = ()) -> None:
    """Take them; should one fail, undo those that were reached, and those that an earlier run had `begun`.

    Raises RefusedError when nothing was changed, FailedError when all was undone, with what serves and the next step,
    PersonNeededError when somebody has to look: something couldn't be undone, or what lasts already isn't whole.
    """
    stack, reached = work.stack, list[Step[L]]()
    try:
        for step in steps:
            reached.append(step)
            take(stack, work, [step])
    except BaseException as error:
        stack.machine.shield()
        cause = _expected(error)
        stack.journal.show_log(reached[-1].name, cause.tail if cause else "")
        if work.lasts:
            raise PersonNeededError(f"{work.lasts}, but {cause or repr(error)}: {work.remedy}") from error
        left = undo(work, begun or reached)
        if left:
            raise PersonNeededError(f"{cause or repr(error)}; not undone: {left}: {work.remedy}") from error
        if cause is None:
            raise
        if isinstance(cause, FailedError):
            cause = FailedError(f"{cause}; {work.serving}: mend the cause, then {work.remedy}")
        raise cause from error


def _expected(error: BaseException) -> StackError | None:
    """The error to end with, or None for a fault of our own: that one goes on as it is, once all is undone."""
    if isinstance(error, KeyboardInterrupt):
        return FailedError("interrupted")
    if isinstance(error, OSError):
        return FailedError(f"{error}: see the machine's own log (journalctl -b)")
    return error if isinstance(error, StackError) else None


def undo(work: L, reached: Sequence[Step[L]]) -> str:
    """Backwards. What could not be undone, by the steps' names."""
    left = []
    for step in reversed(reached):
        if step.undo:
            try:
                step.undo(work)
            except (StackError, OSError) as error:
                work.stack.journal.tell(step.name, "failed", f"not undone: {error}")
                left.append(step.name)
            else:
                work.stack.journal.tell(step.name, "undone")
    return ", ".join(left)
