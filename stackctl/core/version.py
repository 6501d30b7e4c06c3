"""The version of the project. pyproject.toml reads the version from here, and `stackctl status` shows it."""

VERSION = "0.1.0"
