"""The data of one release or rollback, and the function that runs its steps."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from stackctl.app import lifecycle, state
from stackctl.app.stack import Stack
from stackctl.app.state import Release, Revision, State
from stackctl.app.telegram import Telegram
from stackctl.core.errors import FailedError, RefusedError, StackError
from stackctl.core.steps import Step, run_or_undo
from stackctl.release.watch import Flip


@dataclass
class ReleaseRun:
    """A release or a rollback in progress."""

    stack: Stack
    release: Release
    digest: str | None = None
    """The digest that the image must have, if the caller named a digest."""
    keep_image: bool = False
    """Whether a tag that is already live keeps its image. A converge sets this, because a converge never upgrades."""
    recovers: bool = False
    """Whether the remains of an interrupted release are removed first."""
    before: State = field(default_factory=State)
    colour: str = ""
    """The colour for the release. Empty until the preflight chooses the colour."""
    values: Mapping[str, str] = field(default_factory=dict)
    pending: Sequence[Revision] = ()
    failed_before: Mapping[str, str] = field(default_factory=dict)
    """The public paths that the live release did not answer before the flip."""
    flip: Flip | None = None
    """The position in nginx's log and the times just before the flip."""

    @property
    def project(self) -> str:
        return self.stack.paths.docker.project(self.colour)

    @property
    def compose_environment(self) -> dict[str, str]:
        return self.stack.web_environment(self.colour, self.release, self.values)

    @property
    def committed(self) -> str:
        return f"{self.release.tag} is live in {self.colour}" if self._recorded else ""

    @property
    def serving(self) -> str:
        return self.stack.serving

    @property
    def remedy(self) -> str:
        return f"stackctl {self.stack.log.op} {self.release.tag}"

    @property
    def telegram(self) -> Telegram | None:
        return Telegram(self.stack.machine, self.values) if self.stack.config.tells_telegram else None

    @property
    def logs(self) -> str:
        """The last lines of the logs of the new colour's containers."""
        return "\n".join(self.stack.docker.logs(container) for container in self.stack.containers(self.colour))

    @property
    def _recorded(self) -> bool:
        """Whether state.json names this release as live. Even an interrupted write may have succeeded."""
        with suppress(StackError):
            current = state.load(self.stack.paths)
            return current.active == self.colour and current.kept[:1] == (self.release,)
        return False


def recover_and_run(run: ReleaseRun, steps: Sequence[Step[ReleaseRun]]) -> None:
    """Run the steps.

    If an interrupted release has left something behind, first return to the recorded release. If a later step refuses
    the run, raise FailedError instead of RefusedError, because the recovery has changed something.
    """
    if not run.recovers:
        run_or_undo(run, steps)
        return
    try:
        run_or_undo(run, (_RECOVER, *steps))
    except RefusedError as error:
        left = f"{error.message}. Before that, the remains of an interrupted release were removed"
        raise FailedError(left, next_step=error.next_step) from error


def _recover(run: ReleaseRun) -> str:
    return lifecycle.recover(run.stack)


_RECOVER = Step("settle", "recover from an interrupted release", _recover)
