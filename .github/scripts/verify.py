"""That a place serves a release, by stackctl's word and over HTTPS: `verify.py staging IMAGE TAG DIGEST BEFORE`.

DIGEST is what the build pushed. BEFORE is the file with its status of before the release: what was wrong then is no
fault of the release. CI_KEY is in the environment, the checkout's root the working directory.
"""

from __future__ import annotations

import http.client
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any


def main(place: str, image: str, tag: str, digest: str, before: str) -> None:
    data: dict[str, Any] = runpy.run_path("group_data/all.py") | runpy.run_path(f"group_data/{place}.py")
    check_serving(place, f"{image}@{digest}", tag, json.loads(Path(before).read_text())["problems"])
    answer = answering(data["domain"], data["public_paths"][0])
    print(f"{place} serves {tag} as {digest}; {data['domain']} answers {answer}")


def printable(text: str) -> str:
    """A droplet's words on one line: a terminal obeys nothing of it, nor does GitHub's runner.

    The runner takes a line that begins with `::`, spaces before it aside, for a command, and `##[` anywhere in one
    (actions/runner, ActionCommand.cs).
    """
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return re.sub(r"^\s*(?=::)", "| ", shown.replace("##[", "# #["))


def check_serving(place: str, image: str, tag: str, known: list[str]) -> None:
    """Exit with what is wrong, unless the release is live from that very image."""
    asked = [str(Path(__file__).with_name("stackctl")), place, "status", "--json"]
    ran = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False)
    if not ran.stdout:
        sys.exit(ran.returncode or 1)
    status = json.loads(ran.stdout)
    problems = "\n".join(printable(str(problem)) for problem in status["problems"])
    # What the release itself is made of has to be well, though it was not before an earlier try.
    if status["drift"] or status["stale"] or not {*status["problems"]} <= {*known}:
        sys.exit(problems)
    print(f"As before the release: {problems or 'no problem'}")
    release = status["release"] or {"tag": "no release", "image": "no image"}
    if (release["image"], release["tag"]) != (image, tag):
        sys.exit(printable(f"{place} serves {release['tag']} of {release['image']}, not {tag} of {image}"))


def answering(domain: str, path: str) -> int:
    """Any answer of the app's will do, which may well want a secret. 5xx is nginx's word for nobody there."""
    connection = http.client.HTTPSConnection(domain, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"https://{domain}{path}: {error or type(error).__name__}")
    if answer >= http.client.INTERNAL_SERVER_ERROR:
        sys.exit(f"https://{domain}{path} answers {answer}")
    return answer


if __name__ == "__main__":
    main(*sys.argv[1:])
