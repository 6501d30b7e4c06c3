"""The first steps, which change nothing live: check, pull the image, look for pending migrations, and show the plan."""

from dataclasses import replace

from stackctl.app import app_env, images, schema, state
from stackctl.core.paths import COLOURS, other
from stackctl.core.steps import Step
from stackctl.release import preflight
from stackctl.release.run import ReleaseRun
from stackctl.release.tidy import kept


def _preflight(run: ReleaseRun) -> str:
    stack, paths = run.stack, run.stack.paths
    run.values = app_env.load(paths.next_environment)
    run.before = state.load(paths)
    if run.recovers:
        run.before = replace(run.before, active=run.before.recorded_colour)
    run.colour = other(run.before.active) if run.before.active else COLOURS[0]
    run.release = replace(run.release, env_sha256=app_env.env_sha256(run.values))
    preflight.check(stack, run.values)
    preflight.check_disk_space(stack)
    return f"{run.release.tag} will start in {run.colour}, as release {run.release.id}"


def _pin_image(run: ReleaseRun) -> str:
    live = run.before.release
    stays = live if run.keep_image and live and live.tag == run.release.tag else None
    pinned, message = images.pin(run.stack, run.release, digest=run.digest, live=live, stays=stays)
    run.release = replace(run.release, image=pinned)
    return message


def forget_image(run: ReleaseRun) -> None:
    """Remove all images of the app that no kept release needs."""
    images.prune(run.stack, kept(state.load(run.stack.paths)))


def _read_schema(run: ReleaseRun) -> str:
    if not run.stack.config.migrate:
        return "the image has no migrations"
    run.stack.remove_one_shots()
    report = schema.read(run.stack, run.project, run.compose_environment, run.release)
    run.pending = report.pending
    run.release = replace(run.release, schema=report.head)
    run.before = replace(run.before, revisions=schema.applied(run.before.revisions, report))
    if refusal := schema.release_conflict(run.before.revisions, report, run.before.release):
        raise refusal
    return f"the database is at {report.current or 'no revision'}; pending migrations: {schema.named(report.pending)}"


def _remove_one_shots(run: ReleaseRun) -> None:
    run.stack.remove_one_shots()


def _emit_plan(run: ReleaseRun) -> str:
    for line in _lines(run):
        run.stack.log.emit("plan", "progress", line)
    return ""


def _lines(run: ReleaseRun) -> list[str]:
    live, config = run.before.release, run.stack.config
    was = f"and replaces {live.tag} in {run.before.active}" if live else "as the first release"
    lines = ["a release was interrupted, so the recorded release is brought back first"] if run.recovers else []
    lines.append(f"{run.release.tag} ({run.release.image}) goes live in {run.colour} {was}")
    if live and live.env_sha256 != run.release.env_sha256:
        names = app_env.differing(run.stack.paths.snapshot(live.id), run.values)
        differing = f"the app environment differs in {', '.join(names)}"
        lines.append(differing if names else "the app environment of the live release is lost, so it is not compared")
    if config.migrate:
        lines.append(f"migrations: {schema.named(run.pending)}")
    if any(revision.kind == "contract" for revision in run.pending):
        lines.append(
            "a contract migration is pending. After that migration, no rollback can go further back than the "
            "live release"
        )
    lines.append(
        "the database is dumped first" if config.data else "the database is on another host, so it is not dumped"
    )
    if live:
        lines.append(
            f"{live.tag} keeps running for {config.watch} s after the flip; then it is stopped, and kept for a rollback"
        )
    if live and config.works:
        lines.append("the worker is replaced after it has finished its job")
    return lines


PREFLIGHT = Step("preflight", "check the settings, the data services and the disk space", _preflight)
PLAN = (
    PREFLIGHT,
    Step("image", "pull the image, pin its digest and tag it", _pin_image, forget_image),
    Step("schema", "ask the new image which migrations are pending", _read_schema, _remove_one_shots),
    Step("plan", "show what will change", _emit_plan),
)
