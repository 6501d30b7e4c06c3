"""The command line."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from aiohttp import web

from .app import make_app
from .methods import known_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for the Telegram Bot API.")
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--token-file", required=True, type=Path, help="file with the bot's tokens, one per line")
    parser.add_argument(
        "--trust", required=True, type=Path, help="PEM file of the roots that a webhook's chain may lead to"
    )
    arguments = parser.parse_args()
    if not known_tokens(arguments.token_file):
        parser.error(
            f"{arguments.token_file} contains no token. Write one like 123456:ABC-def into it, without quotes."
        )
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    host, _, port = arguments.listen.rpartition(":")
    # There is no access log, because the token is part of the path.
    web.run_app(make_app(arguments.token_file, arguments.trust), host=host, port=int(port), access_log=None)


if __name__ == "__main__":
    main()
