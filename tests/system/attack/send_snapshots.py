"""Sends snapshots with the droplet's key, password and restic, as an intruder on the droplet can.

Standard input has the manifests, the files' contents and restic's --time. The program makes each manifest match its
files, unless "as_told" is set. Prints the snapshots' IDs.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

told = json.load(sys.stdin)
access = json.loads(Path(told["access"]).read_bytes())
environment = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/root",
    "RESTIC_REPOSITORY": told.get("repository") or access["repository"],
    "RESTIC_PASSWORD": access["password"],
    "AWS_ACCESS_KEY_ID": access["key_id"],
    "AWS_SECRET_ACCESS_KEY": access["key_secret"],
}


def restic(*arguments: str) -> str:
    ran = subprocess.run(["restic", *arguments], env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(ran.stderr)
    return ran.stdout


sent = []
with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
    for number, one in enumerate(told["snapshots"]):
        name = one["manifest"]["id"]
        directory = Path(place, str(number), name)
        directory.mkdir(parents=True)
        files = {}
        for file, text in one["files"].items():
            (directory / file).write_text(text)
            files[file] = {"bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}
        own = {} if one.get("as_told") else {"files": files}
        (directory / "manifest.json").write_text(json.dumps(one["manifest"] | own))
        options = ["--quiet", "--host", told["app"], "--tag", name]
        options += ["--time", one["time"]] if one.get("time") else []
        restic("backup", *options, str(directory))
        (snapshot,) = json.loads(restic("snapshots", "--json", "--tag", name, "--path", str(directory)))
        sent.append(snapshot["id"])
print(json.dumps(sent))
