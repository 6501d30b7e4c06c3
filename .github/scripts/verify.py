"""Verify that an environment serves a release: ask stackctl for the status, and send a request over HTTPS.

The command line is `verify.py staging IMAGE TAG DIGEST BEFORE`. DIGEST is the digest of the image that the build
pushed. BEFORE is a file with the output of `status --json` from before the release. Problems in that file do not count,
because the release did not cause them. The environment variable CI_KEY must be set, and the working directory must be
the checkout's root.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from deploys.config.environments import group_data


def main(environment: str, image: str, tag: str, digest: str, before: str) -> None:
    data = group_data(environment)
    check_serving(environment, f"{image}@{digest}", tag, json.loads(Path(before).read_text())["problems"])
    answer = answering(data["domain"], data["public_paths"][0])
    print(f"{environment} serves {tag} as {digest}; {data['domain']} answers {answer}")


def printable(text: str) -> str:
    """Return a droplet's text as one line that holds no command for a terminal or for GitHub's runner.

    The runner takes a line for a command if the line begins with spaces and `::`, or has `##[` anywhere
    (actions/runner, ActionCommand.cs).
    """
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return re.sub(r"^\s*(?=::)", "| ", shown.replace("##[", "# #["))


def check_serving(environment: str, image: str, tag: str, known: list[str]) -> None:
    """Exit with an error unless the release is live from exactly that image, and without new problems."""
    asked = [str(Path(__file__).with_name("stackctl")), environment, "status", "--json"]
    ran = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False)
    if not ran.stdout:
        sys.exit(ran.returncode or 1)
    status = json.loads(ran.stdout)
    problems = "\n".join(printable(str(problem)) for problem in status["problems"])
    # The containers of the release must be healthy, even if an earlier attempt had already broken them.
    if status["drift"] or status["stale"] or not {*status["problems"]} <= {*known}:
        sys.exit(problems)
    print(f"Problems from before the release: {problems or 'none'}")
    release = status["release"] or {"tag": "no release", "image": "no image"}
    if (release["image"], release["tag"]) != (image, tag):
        sys.exit(printable(f"{environment} serves {release['tag']} of {release['image']}, not {tag} of {image}"))


def answering(domain: str, path: str) -> int:
    """Return the status of an HTTPS request, or exit if there is no answer or a 5xx, with which nginx reports no app.

    Other errors count as an answer: the app may refuse a request that has no secret.
    """
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
