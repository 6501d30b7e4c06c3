"""The gate admits the requests that CI's key may make.

The forced command of CI's key passes a request as one string.
"""

import re

from stackctl.core import names
from stackctl.core.errors import RefusedError

_ID = rf"(\ --id\ {names.REQUEST_ID})?"
_ALLOWED = re.compile(
    rf"""release\ {names.TAG}(@sha256:[0-9a-f]{{64}})?(\ --dry-run)?(\ --json)?{_ID}
    | release\ --follow(\ --json)?{_ID}
    | rollback(\ {names.TAG})?(\ --json)?{_ID}
    | status(\ --json)?""",
    re.ASCII | re.VERBOSE,
)
_IN_WORDS = (
    "release TAG[@sha256:DIGEST] [--dry-run] [--json] [--id ID], release --follow [--json] [--id ID], "
    "rollback [TAG] [--json] [--id ID], status [--json]. Options must have this order, with single spaces "
    "between all words"
)
_SHOWN = 80


def parse(original_command: str) -> list[str]:
    """Return the request as arguments, or raise RefusedError. The arguments contain only options in `_ALLOWED`."""
    if not _ALLOWED.fullmatch(original_command):
        # The request comes from outside, and terminals and logs show this message, so `!a` escapes the request.
        raise RefusedError(f"{original_command[:_SHOWN]!a} is not allowed with this key. The key may run: {_IN_WORDS}")
    return original_command.split(" ")
