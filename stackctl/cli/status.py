"""status: what runs, whether it is what should run, and what to type next. It only looks."""

from dataclasses import asdict
from typing import Any

from stackctl.app import app_env, state, unfinished_restore, webhook
from stackctl.app.stack import expected_sha256
from stackctl.app.state import State
from stackctl.backup import listing
from stackctl.backup.offsite import access
from stackctl.core import history, lock
from stackctl.core.config import Config
from stackctl.core.errors import StackError
from stackctl.core.machine import Machine
from stackctl.core.paths import APP_SERVICES, COLOURS, DATA_SERVICES, Paths, other
from stackctl.core.printable import printable
from stackctl.core.version import VERSION
from stackctl.host import certificate, foreign, roles, trial, upkeep
from stackctl.host.findings import Finding
from stackctl.services.docker import Container, Docker
from stackctl.services.postgres import Server
from stackctl.services.redis import Redis

Report = dict[str, Any]
NGINX = "nginx.service"
UNDOING_S = 10
"""Longer than it takes to put a firewall back."""


def report(paths: Paths, config: Config, machine: Machine) -> Report:
    """The answer to `status --json`, version 1. `problems` is empty when nobody is needed."""
    current = state.load(paths)
    errand, work = lock.holder_of(paths.lock), lock.holder_of(paths.work)
    holder = errand or work
    expected = _expected(paths, current)
    asked = webhook.look(paths, config, machine, current)
    docker = Docker(machine)
    problems, drift = [], []
    of_roles, settings = None, list[str]()
    of_colour: dict[str, list[Container]] = {colour: [] for colour in COLOURS}
    of_data: list[Container] = []
    of_worker: list[Container] = []
    gone: list[str] = []
    try:
        of_colour = {colour: docker.containers(paths.project(colour)) for colour in COLOURS}
        of_data = docker.containers(paths.data_project) if config.data else []
        of_worker = docker.containers(paths.worker_project)
        gone = [known.id for known in current.earlier if not docker.image(known.image)]
        drift = drift_of(current, of_colour, expected) + _socket_drift(paths, current, machine)
        drift += _worker_drift(config, current, of_worker) if work is None else []
    except StackError as error:
        problems.append(f"{error}: systemctl status docker")
    half = unfinished_restore.load(paths) if work is None else None
    telegram = asked()
    if half:
        # What it stopped is for it to start: a converge leaves that alone.
        drift, problems = [], [*problems, half.remedy]
    elif work is None:  # boot or a release may be at it
        drift += _interrupted(current, of_colour)
        drift += _webhook_drift(telegram, current)
        problems += _nothing_live(current)
    if config.data and work is None:
        problems += _data_problems(paths, docker, of_data)
        of_roles, settings, silent = _roles(paths, config.data.database, docker, of_data)
        problems += silent
    if config.data:
        problems += listing.problems(paths, machine, nightly=not config.isolated)
        problems += access.problems(paths, config.environment)
    # Amid a release the worker is still, or already, another one's.
    worker = of_worker if config.works and work is None else []
    of_release = [*of_colour[current.active], *worker] if current.active else []
    stale = stale_services(paths, of_release, expected)
    problems += [f"{line}: {_remedy(current)}" for line in drift]
    problems += [
        f"{service} was made from another Compose file or environment: {_remedy(current)}" for service in stale
    ]
    differs = _environment_differs(paths, current)
    if differs:
        problems.append(f"the declared environment isn't the one that runs: {_remedy(current)}")
    # Under maintenance nginx turns Telegram away.
    problems += telegram.problems(machine.now().timestamp()) if work is None and not current.maintenance else []
    problems += upkeep.problems(paths, machine, weekly=config.data is not None and not config.isolated)
    problems += _edge_problems(config, machine)
    served = _certificate(paths, config, machine)
    found = foreign.look(paths, config, machine, of_roles)
    return {
        "version": 1,
        "stackctl": VERSION,
        "app": paths.app,
        "lock": {"holder": holder.holder, "since": holder.since} if holder else None,
        "trials": [asdict(one) for one in trial.under_way(paths)],
        "maintenance": current.maintenance,
        "restoring": paths.restoring.exists(),
        "isolated": config.isolated,
        "active": current.active,
        "release": asdict(current.release) if current.release else None,
        "colours": {
            colour: {**asdict(release), "containers": [_seen(paths, c) for c in of_colour[colour]]} if release else None
            for colour, release in current.colours.items()
        },
        "worker": {**asdict(current.worker), "containers": [_seen(paths, c) for c in of_worker]}
        if current.worker
        else None,
        "kept": [asdict(release) for release in current.kept],
        "left": list(current.left),
        "gone": gone,
        "under_way": history.under_way(paths) if work else None,
        "webhook": current.webhook.url if current.webhook else None,
        "telegram": telegram.document,
        "data": [_seen(paths, container) for container in of_data],
        "database_settings": settings,
        "certificate": served,
        "reboot_due": _reboot_due(paths),
        "environment_differs": differs,
        "drift": drift,
        "stale": stale,
        "foreign": [{**asdict(one), "next": foreign.next_step(one)} for one in found.findings],
        "foreign_accepted": found.accepted,
        "problems": problems
        + _certificate_problems(paths, served)
        + _trial_problems(paths, machine)
        + foreign.problems(found),
    }


def drift_of(current: State, of_colour: dict[str, list[Container]], expected: str | None) -> list[str]:
    """Why the app should be released anew, a line each. `expected` is the label's value, None when that is lost."""
    colour, release = current.active, current.release
    if colour is None:
        return []
    if release is None or expected is None:
        return [f"what {colour} was started with is lost"]
    found = {container.service for container in of_colour[colour]}
    lines = [f"{service} is missing" for service in APP_SERVICES if service not in found]
    for container in of_colour[colour]:
        if not container.serves:
            lines.append(f"{container.service} is {container.condition}")
        if container.image != release.image:
            lines.append(f"{container.service} is of another image, {container.image}")
    return lines


def _worker_drift(config: Config, current: State, of_worker: list[Container]) -> list[str]:
    if config.isolated:
        return [f"{c.service} is {c.condition} though this droplet is isolated" for c in of_worker if c.serves]
    if not config.worker or not current.active:
        return []
    if not of_worker:
        return ["worker is missing"]
    return [f"{c.service} is {c.condition}" for c in of_worker if not c.serves]


def stale_services(paths: Paths, of_release: list[Container], expected: str | None) -> list[str]:
    """The live services that were made from other Compose files, environment or image than the droplet has now."""
    if expected is None:
        return []
    return [c.service for c in of_release if c.labels.get(paths.sha256_label) != expected]


def _webhook_drift(telegram: webhook.Look, current: State) -> list[str]:
    if telegram.wanted and current.webhook != telegram.wanted:
        return ["Telegram was not told where this release takes updates"]
    return telegram.drift


def _socket_drift(paths: Paths, current: State, machine: Machine) -> list[str]:
    if current.active is None:
        return []
    unit = paths.socket_unit(current.active)
    return [f"{unit} is not active"] if machine.run(["systemctl", "is-active", "--quiet", unit]).code else []


def _edge_problems(config: Config, machine: Machine) -> list[str]:
    """Where nginx is to run, and doesn't, nothing that is well here is of use to anybody."""
    if not config.certificate or not machine.run(["systemctl", "is-active", "--quiet", NGINX]).code:
        return []
    return [f"{NGINX} is not active, so nobody is served. Next: sudo nginx -t && sudo systemctl restart {NGINX}"]


def _interrupted(current: State, of_colour: dict[str, list[Container]]) -> list[str]:
    """What a killed release left running. With no release at all there is none to do anew."""
    idle = other(current.active) if current.active else None
    return [f"{idle} still runs: a release was interrupted"] if idle and any(c.well for c in of_colour[idle]) else []


def _nothing_live(current: State) -> list[str]:
    """The link is gone, or the first release was killed before it: a release that is known, and serves nobody."""
    if current.active:
        return []
    known = {colour: release.tag for colour, release in current.colours.items() if release}
    return [f"{tag} in {colour} isn't live: sudo stackctl release {tag}" for colour, tag in known.items()]


def _data_problems(paths: Paths, docker: Docker, of_data: list[Container]) -> list[str]:
    serving = {container.service for container in of_data if container.serves}
    conditions = {container.service: container.condition for container in of_data}
    unwell = [f"{name} is {conditions.get(name, 'missing')}" for name in DATA_SERVICES if name not in serving]
    lines = [f"{line}: sudo systemctl restart {paths.unit}" for line in unwell]
    return lines + (_failing_saves(paths, docker) if "redis" in serving else [])


def _roles(
    paths: Paths, database: str, docker: Docker, of_data: list[Container]
) -> tuple[list[Finding] | None, list[str], list[str]]:
    """What PostgreSQL says of roles and settings, and why it doesn't: that it does not serve is told already."""
    if not any(container.service == "postgres" and container.serves for container in of_data):
        return None, [], []
    try:
        found = roles.look(Server(docker, paths.data_container("postgres")), database)
    except StackError as error:
        return None, [], [f"PostgreSQL can't be asked who has power there ({error}): stackctl logs postgres"]
    return found.undeclared, found.settings, []


def _failing_saves(paths: Paths, docker: Docker) -> list[str]:
    try:
        failing = Redis(docker, paths).failing_saves()
    except (StackError, OSError) as error:
        return [f"Redis can't be asked how its saves go ({error}): stackctl logs redis"]
    # It refuses writes until one succeeds.
    return [f"Redis could not save ({name}): make room on the disk, and see stackctl logs redis" for name in failing]


def _remedy(current: State) -> str:
    return f"make site, or sudo stackctl release {current.release.tag if current.release else 'TAG'}"


def _expected(paths: Paths, current: State) -> str | None:
    if not current.release:
        return None
    try:
        return expected_sha256(paths, current.release, app_env.load(paths.snapshot(current.release.id)))
    except StackError:
        return None


def _environment_differs(paths: Paths, current: State) -> bool:
    """An environment that can't be read is told by what wants to use it: the next release."""
    try:
        declared = app_env.env_sha256(app_env.load(paths.next_environment))
    except StackError:
        return False
    return current.release is not None and declared != current.release.env_sha256


def _reboot_due(paths: Paths) -> list[str] | None:
    """The packages whose upgrade comes into force by a reboot alone; None when none is due."""
    if not paths.reboot_required.exists():
        return None
    try:
        return sorted(set(paths.reboot_packages.read_text().split()))
    except FileNotFoundError:
        return []


def _certificate(paths: Paths, config: Config, machine: Machine) -> Report | None:
    facts = certificate.read(paths.tls_current / certificate.CHAIN, machine) if config.certificate else None
    if not config.certificate or not facts:
        return None
    served = paths.tls_current.resolve()
    placeholder = served == paths.tls_placeholder.resolve()
    lineage = certificate.same(served, paths.tls_live(config.certificate.domain))
    return {
        "placeholder": placeholder,
        "as_declared": lineage and certificate.difference(paths, config.certificate, machine) is None,
        "issuer": facts.issuer,
        "subject_names": sorted(facts.names),
        "not_after": facts.not_after.isoformat(),
        "expired": facts.not_after < machine.now(),
        "cause": certificate.failure(paths),
    }


def _certificate_problems(paths: Paths, served: Report | None) -> list[str]:
    if not served:
        unreadable = f"{paths.tls_current} leads to no certificate: converge the site (make site)"
        return [unreadable] if paths.tls_current.is_symlink() else []
    lines = []
    if not served["as_declared"]:
        what = "a placeholder" if served["placeholder"] else "an older certificate"
        cause = served["cause"] or "the declared one was not asked for yet"
        lines.append(f"nginx serves {what}: {cause}: sudo stackctl certificate")
    if served["expired"]:
        lines.append(f"the certificate ended on {served['not_after'][:10]}: sudo certbot renew")
    return lines


def _trial_problems(paths: Paths, machine: Machine) -> list[str]:
    """A trial that outlived its time could not be undone: it is tried again every few seconds."""
    late = [one.name for one in trial.under_way(paths) if trial.left_of(one, machine) <= -UNDOING_S]
    return [f"the change of {name} could not be undone: journalctl -u {paths.trial_service(name)}" for name in late]


def text(report: Report) -> str:
    """The report for people."""
    release, served, holder = report["release"], report["certificate"], report["lock"]
    live = f"{release['tag']} in {report['active']} {_since(report)}" if release else "no release yet"
    rows = [(report["app"], live if release else f"{live}: sudo stackctl release TAG")]
    if release:
        rows += _conditions(report["colours"][report["active"]]["containers"])
        rows += _conditions(report["worker"]["containers"]) if report["worker"] else []
    rows += _conditions(report["data"])
    rows += [("setting", f"{one} (stackctl's own sessions overrule it)") for one in report["database_settings"]]
    if served:
        what = "placeholder" if served["placeholder"] else f"{', '.join(served['subject_names'])} by {served['issuer']}"
        rows.append(("certificate", f"{what}, until {served['not_after'][:10]}"))
    if report["reboot_due"] is not None:
        rows.append(("reboot", f"due, for {', '.join(report['reboot_due']) or 'an upgrade'}: sudo systemctl reboot"))
    if report["isolated"]:
        rows.append(("ISOLATED", "a copy: no worker, no webhook, nothing leaves, everybody gets 503: make live"))
    if report["maintenance"]:
        until = "while data is restored" if report["restoring"] else "sudo stackctl maintenance off"
        rows.append(("maintenance", f"on, everybody gets 503: {until}"))
    if at := report["under_way"]:
        what = f"{at['op']} {at['tag']}".strip()
        rows.append(("under way", f"{what} by {at['by']} since {at['since'][:19]}, at {at['step'] or 'its start'}"))
    rows.append(("stackctl", report["stackctl"]))
    rows.append(("lock", f"{holder['holder']}, since {holder['since']}" if holder else "free"))
    rows += [
        ("on trial", f"{one['name']}, undone at {one['until']} unless a new login confirms it")
        for one in report["trials"]
    ]
    if report["telegram"] and report["telegram"]["silence"]:
        rows.append(("Telegram", f"can't be asked: {report['telegram']['silence']}"))
    rows += [("problem", problem) for problem in report["problems"]]
    rows += _kept(report)
    width = max(len(name) for name, _ in rows)
    return "\n".join(printable(f"{name:<{width}}  {value}") for name, value in rows)


def _since(report: Report) -> str:
    """A release is recorded when it was watched: until then nobody knows whether it stays."""
    if report["release"]["since"]:
        return f"since {report['release']['since']}"
    return "and not recorded yet" if report["under_way"] else "and never recorded: a release was interrupted"


def _kept(report: Report) -> list[tuple[str, str]]:
    """What a rollback leads to; apart from that, what it leads to only by name, and what it can't lead to."""
    live = report["release"]["id"] if report["release"] else None
    earlier = [known for known in report["kept"] if known["id"] != live]
    gone = [known["tag"] for known in earlier if known["id"] in report["gone"]]
    there = [known for known in earlier if known["id"] not in report["gone"]]
    left = [known["tag"] for known in there if known["id"] in report["left"]]
    usable = [known["tag"] for known in there if known["id"] not in report["left"]]
    rows = []
    if usable:
        first = next(known["tag"] for known in earlier if known["id"] not in report["left"])
        named = "" if usable[0] == first else f" {usable[0]}"
        rows.append(("kept", f"{', '.join(usable)}: sudo stackctl rollback{named}"))
    if left:
        rows.append(("kept", f"{', '.join(left)}, which a rollback has left: sudo stackctl rollback {left[0]}"))
    if gone:
        rows.append(("kept", f"{', '.join(gone)}, whose image is gone: sudo stackctl release {gone[0]}"))
    return rows


def _conditions(containers: list[Report]) -> list[tuple[str, str]]:
    return [(f"  {c['service']}", ", ".join(word for word in (c["state"], c["health"]) if word)) for c in containers]


def _seen(paths: Paths, container: Container) -> Report:
    """`sha256` says what it was made from (compose.stack_sha256)."""
    facts = {key: getattr(container, key) for key in ("service", "state", "health", "image")}
    return {**facts, "sha256": container.labels.get(paths.sha256_label)}
