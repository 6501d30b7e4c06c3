"""history: who released what and when, how long each step took, and why it was undone."""

from collections.abc import Iterable
from typing import Any

from .events import parsed
from .paths import Paths
from .printable import printable

Run = dict[str, Any]
SHOWN = 10


def runs(paths: Paths, op: str = "") -> list[Run]:
    """Every run that is remembered, or those of one verb, oldest first.

    Each is {run, op, by, tag, at, state, code, ms, message, steps: [...]}.

    `state` is done, failed or unfinished: under way, or killed.
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
                **{"run": event["run"], "op": event["op"], "by": event["by"], "tag": event["tag"], "at": event["ts"]},
                **{"state": "unfinished", "code": None, "ms": None, "message": "", "steps": []},
            }
        elif (run := found.get(key)) is None:
            continue  # its beginning was trimmed away
        elif "code" in event:
            run |= {key: event[key] for key in ("state", "code", "ms", "message")}
        elif event["state"] in {"done", "failed", "undone"}:
            run["steps"].append({name: event[name] for name in ("step", "state", "ms", "message")})
    return list(found.values())


def text(every: Iterable[Run]) -> str:
    """The newest runs for people, newest first."""
    lines = []
    for run in list(every)[: -SHOWN - 1 : -1]:
        took = f"{run['ms'] / 1000:.1f} s" if run["ms"] is not None else ""
        what = f"{run['op']} {run['tag']}".strip()
        lines.append(f"{run['at'][:19]}  {what:<16}  {run['state']:<10} {took:>8}  by {run['by']}")
        timed = [f"{step['step']} {step['ms'] / 1000:.1f}" for step in run["steps"] if step["ms"] is not None]
        if timed:
            lines.append(f"    {', '.join(timed)}")
        if run["message"]:
            lines.append(f"    {run['message']}")
    return "\n".join(map(printable, lines)) or "nothing was done here yet"
