"""That a place serves a release, by stackctl's word and over HTTPS: `verify.py staging IMAGE TAG BEFORE`.

BEFORE is the file with its status of before the release: what was wrong then is no fault of the release. CI_KEY is in
the environment, the checkout's root the working directory. The image's digest goes to standard output.
"""

from __future__ import annotations

import http.client
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any


def main(place: str, image: str, tag: str, before: str) -> None:
    data: dict[str, Any] = runpy.run_path("group_data/all.py") | runpy.run_path(f"group_data/{place}.py")
    digest = serving(place, image, tag, json.loads(Path(before).read_text())["problems"])
    answer = answering(data["domain"], data["public_paths"][0])
    print(f"{place} serves {tag} as {digest}; {data['domain']} answers {answer}", file=sys.stderr)
    print(digest)


def serving(place: str, image: str, tag: str, known: list[str]) -> str:
    """The live release's digest."""
    asked = [str(Path(__file__).with_name("stackctl")), place, "status", "--json"]
    ran = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False)
    if not ran.stdout:
        sys.exit(ran.returncode or 1)
    status = json.loads(ran.stdout)
    problems = "\n".join(status["problems"])
    # What the release itself is made of has to be well, though it was not before an earlier try.
    if status["drift"] or status["stale"] or not {*status["problems"]} <= {*known}:
        sys.exit(problems)
    print(f"As before the release: {problems or 'no problem'}", file=sys.stderr)
    release = status["release"] or {"tag": "no release", "image": "no image"}
    name, _, digest = release["image"].partition("@")
    if (name, release["tag"]) != (image, tag):
        sys.exit(f"{place} serves {release['tag']} of {name}, not {tag} of {image}")
    return str(digest)


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
