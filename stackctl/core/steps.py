"""Runs a table of steps in order.

If a step fails, the steps already done are undone in reverse, unless the run is committed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

from stackctl.core.context import Context
from stackctl.core.errors import FailedError, PersonNeededError, StackError


class Run(Protocol):
    """The data that the steps of one run share."""

    @property
    def stack(self) -> Context:
        """The context that the run works with."""


class Undoable(Run, Protocol):
    """A run whose steps can be undone until the run is committed."""

    @property
    def committed(self) -> str:
        """A description of the changes that stay if a step fails now.

        The description is empty while everything can be undone.
        """

    @property
    def serving(self) -> str:
        """A description of what is live once everything is undone."""

    @property
    def remedy(self) -> str:
        """The command with which an operator continues the run after correcting the cause of a failure."""


R = TypeVar("R")
U = TypeVar("U", bound=Undoable)


class Step(NamedTuple, Generic[R]):
    """One step. `act` does the step and returns a message. `undo` reverts `act`, even if `act` failed halfway."""

    name: str
    description: str
    act: Callable[[R], str]
    undo: Callable[[R], None] | None = None


def run_steps(stack: Context, run: R, steps: Sequence[Step[R]]) -> None:
    """Run the steps in order, each with its events. Stop at the first step that fails."""
    for step in steps:
        stack.log.step(step.name, partial(step.act, run), step.description)


def run_or_undo(run: U, steps: Sequence[Step[U]], already_begun: Sequence[Step[U]] = ()) -> None:
    """Run the steps.

    If a step fails, undo the steps so far, or all steps in `already_begun`.

    Raises RefusedError if nothing was changed. Raises FailedError if everything was undone. The error names the live
    release and the next command. Raises PersonNeededError if something could not be undone, or if the run is committed
    but incomplete.
    """
    stack, done = run.stack, list[Step[U]]()
    try:
        for step in steps:
            done.append(step)
            run_steps(stack, run, [step])
    except BaseException as error:
        stack.machine.ignore_signals()
        cause = _expected(error)
        failure = cause.message if cause else repr(error)
        stack.log.emit_tail(done[-1].name, cause.tail if cause else "")
        if run.committed:
            raise PersonNeededError(f"{run.committed}, but {failure}", next_step=_next_step(run, cause)) from error
        left = undo(run, already_begun or done)
        if left:
            raise PersonNeededError(f"{failure}. Not undone: {left}", next_step=_next_step(run, cause)) from error
        if cause is None:
            raise
        if isinstance(cause, FailedError):
            again = _next_step(run, cause, "fix the cause")
            cause = FailedError(f"{cause.message}. {run.serving}", next_step=again)
        raise cause from error


def _next_step(run: Undoable, cause: StackError | None, otherwise: str = "") -> str:
    """Return the next step that the error names, followed by the run's remedy.

    If the error's next step already runs the same verb, such as a restore of another backup, return only that next
    step.
    """
    first = cause.next_step if cause else ""
    if run.stack.log.op in first:
        return first
    return ", then ".join(filter(None, (first or otherwise, run.remedy)))


def _expected(error: BaseException) -> StackError | None:
    """Return the error that ends the run, or None for an internal error, which is raised again after the undo."""
    if isinstance(error, KeyboardInterrupt):
        return FailedError("the run was interrupted")
    if isinstance(error, OSError):
        return FailedError(str(error), next_step="see the droplet's own log (journalctl -b)")
    return error if isinstance(error, StackError) else None


def undo(run: U, done: Sequence[Step[U]]) -> str:
    """Undo the steps in reverse order. Return the names of the steps that could not be undone."""
    left = []
    for step in reversed(done):
        if step.undo:
            try:
                step.undo(run)
            except (StackError, OSError) as error:
                run.stack.log.emit(step.name, "failed", f"not undone: {error}")
                left.append(step.name)
            else:
                run.stack.log.emit(step.name, "undone")
    return ", ".join(left)
