"""The verb `release` makes an image live in the idle colour. If the release fails, the former state is restored.

STEPS lists all steps in order. If a step up to `record` fails, that step and the steps before it are undone in reverse
order. After the step `record`, the new release is live, and only cleanup is left. If the run is killed at any point,
one colour is still live, and the same command finishes the release. Every step also works if an interrupted run has
left something behind.
"""

import re

from stackctl.app import lifecycle
from stackctl.app.stack import Stack
from stackctl.app.state import Release
from stackctl.core import names
from stackctl.core.errors import RefusedError
from stackctl.core.steps import run_steps
from stackctl.release.plan import PLAN, forget_image
from stackctl.release.prepare import PREPARE
from stackctl.release.run import ReleaseRun, recover_and_run
from stackctl.release.serve import SERVE_AND_WATCH
from stackctl.release.tidy import TIDY

TAG = re.compile(rf"(?P<tag>{names.TAG})(@(?P<digest>sha256:[0-9a-f]{{64}}))?", re.ASCII)
STEPS = (*PLAN, *PREPARE, *SERVE_AND_WATCH, *TIDY)


def parse(tag: str) -> tuple[str, str | None]:
    """Split TAG or TAG@sha256:… into tag and digest. Raise RefusedError if `tag` has neither form."""
    match = TAG.fullmatch(tag)
    if not match:
        raise RefusedError(f"{tag!r} is not an image tag. A tag has at most 128 letters, digits, _, . and -")
    return match["tag"], match["digest"]


def release(stack: Stack, tag: str, *, keep_image: bool = False, dry_run: bool = False) -> None:
    """Make the image with this tag live. With `dry_run`, only show the plan.

    With `keep_image`, a tag that is already live keeps its image, even if the registry has a newer image for that tag.
    Raises the same errors as `run_or_undo`.
    """
    name, digest = parse(tag)
    run = ReleaseRun(stack, Release(stack.log.run, name, "", "", None, ""), digest, keep_image)
    run.recovers = lifecycle.needs_recovery(stack)
    if not dry_run:
        recover_and_run(run, STEPS)
        return
    try:
        run_steps(stack, run, PLAN)
    finally:
        stack.remove_one_shots()
        forget_image(run)
