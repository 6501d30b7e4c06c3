"""The history of runs: who ran which verb and when, how long each step took, and why a run failed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stackctl.core.events import parsed
from stackctl.core.paths import Paths
from stackctl.core.printable import printable

Run = dict[str, Any]
SHOWN = 10
TAIL_BYTES = 256 << 10
"""The bytes at the end of the file that are searched for the newest run. One run writes less."""


def runs(paths: Paths, op: str = "") -> list[Run]:
    """Return all runs in the history, or only the runs of one verb, oldest first.

    Each run is {run, op, by, key?, tag, request?, at, state, code, ms, message, steps: [...]}. `state` is done, failed
    or unfinished. An unfinished run is still in progress, or was killed.
    """
    files = (path for path in (paths.history, paths.unwritten) if path.exists())
    lines = [line for path in files for line in path.read_bytes().splitlines()]
    if op:
        lines = [line for line in lines if f'"op": "{op}"'.encode() in line]
    found: dict[tuple[str, str], Run] = {}
    for event in filter(None, map(parsed, lines)):
        key = (event["run"], event["op"])
        if "by" in event:
            found[key] = {
                **{"run": event["run"], "op": event["op"], "by": event["by"]},
                **({"key": event["key"]} if event.get("key") else {}),
                "tag": event["tag"],
                **({"request": event["request"]} if event.get("request") else {}),
                "at": event["ts"],
                **{"state": "unfinished", "code": None, "ms": None, "message": "", "steps": []},
            }
        elif (run := found.get(key)) is None:
            continue  # the run's first event was trimmed away
        elif "code" in event:
            run |= {key: event[key] for key in ("state", "code", "ms", "message")}
        elif event["state"] in {"done", "failed", "undone"}:
            run["steps"].append({name: event[name] for name in ("step", "state", "ms", "message")})
    return list(found.values())


def under_way(paths: Paths) -> Run | None:
    """Return the newest run that has not recorded its last event, and its current step.

    If nobody holds the lock, the run was killed.
    """
    lines = [line for path in (paths.history, paths.unwritten) for line in _tail(path)]
    begun: Run | None = None
    for event in filter(None, map(parsed, lines)):
        if "by" in event:
            who = by(event)
            begun = {"run": event["run"], "op": event["op"], "tag": event["tag"], "by": who, "since": event["ts"]}
            begun["step"] = ""
        elif begun and event["run"] == begun["run"]:
            begun = None if "code" in event else {**begun, "step": event["step"]}
    return begun


def settled_restore(paths: Paths) -> dict[str, str] | None:
    """Return when a boot has undone or finished an interrupted restore, and how, as {at, message}.

    Return None if another restore has begun since then, because its operator knows what happened.
    """
    found = None
    lines = [line for path in (paths.history, paths.unwritten) for line in _tail(path)]
    lines = [line for line in lines if b'"settle"' in line or b'"op": "restore"' in line]
    for event in filter(None, map(parsed, lines)):
        if (event["op"], event["step"], event["state"]) == ("boot", "settle", "done"):
            found = {"at": event["ts"], "message": event["message"]}
        elif event["op"] == "restore" and "by" in event:
            found = None
    return found


def _tail(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def by(run: Mapping[str, Any]) -> str:
    """Return the login that started a run, and the name of the SSH key if the key is known."""
    return f"{run['by']} ({run['key']})" if run.get("key") else str(run["by"])


def text(every: Iterable[Run]) -> str:
    """Format the newest runs for people, newest first."""
    lines = []
    for run in list(every)[: -SHOWN - 1 : -1]:
        took = f"{run['ms'] / 1000:.1f} s" if run["ms"] is not None else ""
        what = f"{run['op']} {run['tag']}".strip()
        lines.append(f"{run['at'][:19]}  {what:<16}  {run['state']:<10} {took:>8}  by {by(run)}")
        timed = [f"{step['step']} {step['ms'] / 1000:.1f}" for step in run["steps"] if step["ms"] is not None]
        if timed:
            lines.append(f"    {', '.join(timed)}")
        if run["message"]:
            lines.append(f"    {run['message']}")
    return "\n".join(map(printable, lines)) or "there is no run yet"
