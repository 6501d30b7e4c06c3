"""The version of the project, stated here once: pyproject.toml takes it from here, `stackctl status` shows it."""

VERSION = "0.1.0"
