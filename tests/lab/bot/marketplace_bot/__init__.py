"""The stand-in bot: a small Telegram marketplace, with all that docs/reference/app-contract.md asks of an app image."""
