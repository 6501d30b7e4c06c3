"""Old names of verbs, make targets and values. An old name works for one version, and each use announces the new
name.

CHANGELOG.md lists the old names as deprecated. Remove the old names when the project reaches the version OLD_NAMES_END.
"""

OLD_NAMES_END = "0.2.0"
"""The version that no longer accepts the old names."""


def now_called(old: str, new: str) -> str:
    """Return the message that announces the new name to a user of an old name."""
    return f"`{old}` is now called `{new}`. The old name works until version {OLD_NAMES_END}"
