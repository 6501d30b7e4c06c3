"""Old names of verbs, make targets and values: accepted for one version, and announced each time.

CHANGELOG.md lists them as deprecated. Remove them when OLD_NAMES_END becomes the version.
"""

OLD_NAMES_END = "0.2.0"
"""The version that no longer accepts the old names."""


def now_called(old: str, new: str) -> str:
    """Return the announcement of an old name that was used."""
    return f"`{old}` is now `{new}`: the old name works until version {OLD_NAMES_END}"
