"""The version of the project. pyproject.toml reads this version, and `stackctl status` shows the version."""

VERSION = "0.1.0"
