"""The verb `status` reports what runs, how this differs from the declared state, and which commands to type next."""

from stackctl.cli.checks import CHECKS, Report
from stackctl.cli.observed import Observed
from stackctl.core.config import Config
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.printable import printable


def report(paths: Paths, config: Config, machine: Machine) -> Report:
    """Return the document of `status --json`, version 1.

    `problems` has a line for each problem that a person must correct.
    """
    seen = Observed(paths, config, machine)
    sections = [check(seen) for check in CHECKS]
    document: Report = {}
    for section in sections:
        document |= section.document
    return document | {"problems": [problem for section in sections for problem in section.problems]}


def text(report: Report) -> str:
    """Return the report as text for people."""
    release, served, holder = report["release"], report["certificate"], report["lock"]
    live = f"{release['tag']} in {report['active']} {_since(report)}" if release else "no release yet"
    rows = [(report["app"], live if release else f"{live}. Next: sudo stackctl release TAG")]
    if release:
        rows += _conditions(report["colours"][report["active"]]["containers"])
        rows += _conditions(report["worker"]["containers"]) if report["worker"] else []
    rows += _conditions(report["data"])
    rows += [("setting", f"{one} (stackctl's own sessions ignore this setting)") for one in report["database_settings"]]
    if served:
        what = "placeholder" if served["placeholder"] else f"{', '.join(served['subject_names'])} by {served['issuer']}"
        rows.append(("certificate", f"{what}, valid until {served['not_after'][:10]}"))
    if report["reboot_due"] is not None:
        rows.append(
            ("reboot", f"due, for {', '.join(report['reboot_due']) or 'an upgrade'}. Next: sudo systemctl reboot")
        )
    rows += _closed(report)
    if at := report["under_way"]:
        what = f"{at['op']} {at['tag']}".strip()
        rows.append(("under way", f"{what} by {at['by']} since {at['since'][:19]}, at {at['step'] or 'its start'}"))
    rows.append(("stackctl", report["stackctl"]))
    rows.append(("lock", f"held by {holder['holder']} since {holder['since']}" if holder else "free"))
    rows += [
        ("on trial", f"{one['name']}, reverted at {one['until']} unless a new login confirms the change")
        for one in report["trials"]
    ]
    if report["telegram"] and report["telegram"]["silence"]:
        rows.append(("Telegram", f"stackctl could not ask Telegram: {report['telegram']['silence']}"))
    rows += [("problem", problem) for problem in report["problems"]]
    rows += _kept(report)
    width = max(len(name) for name, _ in rows)
    return "\n".join(printable(f"{name:<{width}}  {value}") for name, value in rows)


def _closed(report: Report) -> list[tuple[str, str]]:
    """Return the rows that say why everybody gets 503, and how a boot has settled an interrupted restore."""
    rows = []
    if report["copy"]:
        rows.append(("COPY", "made from an image of another droplet: no app, worker, webhook or backup"))
    elif report["isolated"]:
        rows.append(
            ("ISOLATED", "no worker, webhook or outgoing connections, and everybody gets 503. Next: make promote")
        )
    if report["maintenance"]:
        until = " while data is restored" if report["restoring"] else ". Next: sudo stackctl maintenance off"
        rows.append(("maintenance", f"on, so everybody gets 503{until}"))
    if settled := report["settled_restore"]:
        rows.append(("restore", f"{settled['at'][:19]}: {settled['message']}"))
    return rows


def _since(report: Report) -> str:
    """Return since when the release is live.

    A release is not recorded until its watch has ended, and may be undone before.
    """
    if report["release"]["since"]:
        return f"since {report['release']['since']}"
    return "but not recorded yet" if report["under_way"] else "but never recorded, because a release was interrupted"


def _kept(report: Report) -> list[tuple[str, str]]:
    """Return the rows of the kept releases.

    The rows tell for which releases a rollback needs no tag, needs the tag, or has no image.
    """
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
        rows.append(("kept", f"{', '.join(left)}, rolled back earlier: sudo stackctl rollback {left[0]}"))
    if gone:
        rows.append(("kept", f"{', '.join(gone)}, whose image is gone: sudo stackctl release {gone[0]}"))
    return rows


def _conditions(containers: list[Report]) -> list[tuple[str, str]]:
    return [(f"  {c['service']}", ", ".join(word for word in (c["state"], c["health"]) if word)) for c in containers]
