"""Replaces the named file's content with standard input, and keeps the file's mode.

Runs on the droplet as `python3 -c`.
"""

import sys
from pathlib import Path

Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())
