"""The checks of the verb `status`.

Each check returns a section of the report, and the problems that a person must correct.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from stackctl.backup import listing
from stackctl.backup.offsite import access
from stackctl.cli import drift
from stackctl.cli.observed import Observed
from stackctl.core import history, instance
from stackctl.core.errors import StackError
from stackctl.core.paths import COLOURS, DATA_SERVICES, Paths
from stackctl.core.version import VERSION
from stackctl.host import certificate, foreign, resources, trial, upkeep
from stackctl.services.docker import Container
from stackctl.services.redis import Redis

Report = dict[str, Any]
NGINX = "nginx.service"
SETTLED_SHOWN = timedelta(days=7)
"""For this time, status shows that a boot has undone or finished an interrupted restore."""
REVERTING_S = 10
"""A trial that expired this many seconds ago is late. Restoring a firewall takes less."""


class Section(NamedTuple):
    """A section of the report, and the problems that the section's check has found."""

    document: Report
    problems: Sequence[str] = ()


def _program(seen: Observed) -> Section:
    return Section({"version": 1, "stackctl": VERSION, "app": seen.paths.app})


def _locks(seen: Observed) -> Section:
    holder = seen.holder
    return Section(
        {
            "lock": {"holder": holder.holder, "since": holder.since} if holder else None,
            "under_way": history.under_way(seen.paths) if seen.work else None,
        }
    )


def _release(seen: Observed) -> Section:
    current, there = seen.current, seen.containers
    problems = [f"{there.error}. Next: systemctl status docker"] if there.error else []
    if seen.is_copy:
        problems += [instance.REMEDY, *_running_on_copy(seen)]
    elif seen.unfinished:
        problems.append(seen.unfinished)
    elif not seen.work:
        problems += _nothing_live(seen)
    document = {
        "maintenance": current.maintenance,
        "restoring": seen.paths.restoring.exists(),
        "settled_restore": _settled_restore(seen),
        "isolated": seen.config.isolated,
        "copy": seen.is_copy,
        "active": current.active,
        "release": asdict(current.release) if current.release else None,
        "colours": {
            colour: {**asdict(release), "containers": _shown(seen.paths, there.colours[colour])} if release else None
            for colour, release in current.colours.items()
        },
        "worker": {**asdict(current.worker), "containers": _shown(seen.paths, there.worker)}
        if current.worker
        else None,
        "kept": [asdict(release) for release in current.kept],
        "left": list(current.left),
        "gone": there.gone,
    }
    return Section(document, problems)


def _running_on_copy(seen: Observed) -> list[str]:
    there = [*seen.containers.worker, *(one for colour in COLOURS for one in seen.containers.colours[colour])]
    remedy = f"sudo systemctl restart {seen.paths.units.app}"
    return [f"{one.service} is {one.condition} on this copy. Next: {remedy}" for one in there if one.serves]


def _settled_restore(seen: Observed) -> dict[str, str] | None:
    """Return the interrupted restore that a boot has lately undone or finished, so that the operator learns of it."""
    found = history.settled_restore(seen.paths)
    recent = found and seen.machine.now() - datetime.fromisoformat(found["at"]) < SETTLED_SHOWN
    return found if recent else None


def _nothing_live(seen: Observed) -> list[str]:
    """If no release is live, return a line for each known release.

    Either nginx's link is gone, or the first release was killed before its flip.
    """
    if seen.current.active:
        return []
    known = {colour: release.tag for colour, release in seen.current.colours.items() if release}
    return [f"{tag} in {colour} isn't live. Next: sudo stackctl release {tag}" for colour, tag in known.items()]


def _data(seen: Observed) -> Section:
    there, found = seen.containers.data, seen.roles.found
    document = {"data": _shown(seen.paths, there), "database_settings": found.settings if found else []}
    if not seen.config.data or seen.work:
        return Section(document)
    serving = {container.service for container in there if container.serves}
    conditions = {container.service: container.condition for container in there}
    unwell = [
        f"{name} is {conditions[name]}" if name in conditions else f"{name} has no container"
        for name in DATA_SERVICES
        if name not in serving
    ]
    problems = [f"{line}. Next: sudo systemctl restart {seen.paths.units.app}" for line in unwell]
    problems += _failing_saves(seen) if "redis" in serving else []
    if error := seen.roles.error:
        problems.append(f"the check of PostgreSQL's roles failed ({error}). Next: stackctl logs postgres")
    return Section(document, problems)


def _failing_saves(seen: Observed) -> list[str]:
    try:
        failing = Redis(seen.docker, seen.paths).failing_saves()
    except (StackError, OSError) as error:
        return [f"the check of Redis's saves failed ({error}). Next: stackctl logs redis"]
    # After a failed save, Redis refuses writes until a save succeeds.
    return [
        f"Redis could not save its data ({name}). Next: free disk space, then stackctl logs redis" for name in failing
    ]


def _backups(seen: Observed) -> Section:
    if not seen.config.data or seen.is_copy:
        return Section({})
    lines = listing.problems(seen.paths, seen.machine, nightly=not seen.config.isolated)
    return Section({}, [*lines, *access.problems(seen.paths, seen.config.environment)])


def _drift(seen: Observed) -> Section:
    lines, stale = drift.lines(seen), drift.stale(seen)
    differs = not seen.is_copy and drift.environment_differs(seen.paths, seen.current)
    remedy = f"make site, or sudo stackctl release {seen.current.release.tag if seen.current.release else 'TAG'}"
    problems = [
        *lines,
        *(f"{service} was made from another Compose file, image or environment" for service in stale),
        *(["the app environment of the live release differs from the declared app environment"] if differs else []),
    ]
    document = {"environment_differs": differs, "drift": lines, "stale": stale}
    return Section(document, [f"{problem}. Next: {remedy}" for problem in problems])


def _telegram(seen: Observed) -> Section:
    told = seen.current.webhook
    document = {"webhook": told.url if told else None, "telegram": seen.telegram.document}
    # During maintenance, nginx answers 503 to Telegram, so Telegram's complaints are expected.
    asked = not seen.work and not seen.current.maintenance
    return Section(document, seen.telegram.problems(seen.machine.now().timestamp()) if asked else ())


def _upkeep(seen: Observed) -> Section:
    weekly = seen.config.data is not None and not seen.config.isolated
    return Section({"reboot_due": _reboot_due(seen.paths)}, upkeep.problems(seen.paths, seen.machine, weekly=weekly))


def _reboot_due(paths: Paths) -> list[str] | None:
    """Return the packages whose upgrade takes effect only after a reboot, or None if no reboot is due."""
    if not paths.reboot_required.exists():
        return None
    try:
        return sorted(set(paths.reboot_packages.read_text().split()))
    except FileNotFoundError:
        return []


def _resources(seen: Observed) -> Section:
    return Section({}, resources.problems(seen.paths, seen.config, seen.machine))


def _nginx(seen: Observed) -> Section:
    """Report a problem if nginx should run but does not. Without nginx nobody is served, even if the app is healthy."""
    if not seen.config.certificate or not seen.machine.run(["systemctl", "is-active", "--quiet", NGINX]).code:
        return Section({})
    problem = f"{NGINX} is not active, so nobody is served. Next: sudo nginx -t && sudo systemctl restart {NGINX}"
    return Section({}, [problem])


def _certificate(seen: Observed) -> Section:
    served = _served(seen)
    return Section({"certificate": served}, _certificate_problems(seen.paths, served))


def _served(seen: Observed) -> Report | None:
    paths, declared, machine = seen.paths, seen.config.certificate, seen.machine
    facts = certificate.read(paths.tls_current / certificate.CHAIN, machine) if declared else None
    if not declared or not facts:
        return None
    served = paths.tls_current.resolve()
    lineage = certificate.same(served, paths.tls_live(declared.domain))
    return {
        "placeholder": served == paths.tls_placeholder.resolve(),
        "as_declared": lineage and certificate.difference(paths, declared, machine) is None,
        "issuer": facts.issuer,
        "subject_names": sorted(facts.names),
        "not_after": facts.not_after.isoformat(),
        "expired": facts.not_after < machine.now(),
        "cause": certificate.failure(paths),
    }


def _certificate_problems(paths: Paths, served: Report | None) -> list[str]:
    if not served:
        unreadable = f"{paths.tls_current} points to no certificate. Next: converge the site (make site)"
        return [unreadable] if paths.tls_current.is_symlink() else []
    lines = []
    if not served["as_declared"]:
        what = "a placeholder certificate" if served["placeholder"] else "an older certificate"
        cause = served["cause"] or "the declared certificate was not requested yet"
        lines.append(f"nginx serves {what}: {cause}. Next: sudo stackctl certificate")
    if served["expired"]:
        lines.append(f"the certificate expired on {served['not_after'][:10]}. Next: sudo certbot renew")
    return lines


def _trials(seen: Observed) -> Section:
    """Report the trials.

    If a trial still exists after its deadline, the revert has failed, and the timer will try again.
    """
    running = trial.under_way(seen.paths)
    late = [one.name for one in running if trial.seconds_left(one, seen.machine) <= -REVERTING_S]
    problems = [
        f"the change to {name} could not be reverted. Next: journalctl -u {seen.paths.units.trial_service(name)}"
        for name in late
    ]
    return Section({"trials": [asdict(one) for one in running]}, problems)


def _foreign(seen: Observed) -> Section:
    of_roles = seen.roles.found
    found = foreign.look(seen.paths, seen.config, seen.machine, of_roles.undeclared if of_roles else None)
    document = {
        "foreign": [{**asdict(one), "next": foreign.next_step(one)} for one in found.findings],
        "foreign_accepted": found.accepted,
    }
    return Section(document, foreign.problems(found))


def _shown(paths: Paths, containers: list[Container]) -> list[Report]:
    """Return the containers for the report. `sha256` is a hash of a container's sources (compose.stack_sha256)."""
    return [
        {
            **{key: getattr(one, key) for key in ("service", "state", "health", "image")},
            "sha256": one.labels.get(paths.docker.sha256_label),
        }
        for one in containers
    ]


CHECKS: tuple[Callable[[Observed], Section], ...] = (
    _program,
    _locks,
    _release,
    _data,
    _backups,
    _drift,
    _telegram,
    _upkeep,
    _resources,
    _nginx,
    _certificate,
    _trials,
    _foreign,
)
