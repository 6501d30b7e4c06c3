"""Runs on the droplet, as `python3 -c`: writes what comes on standard input into the file named, whose mode stays."""

import sys
from pathlib import Path

Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())
