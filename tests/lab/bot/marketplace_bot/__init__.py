"""The stand-in bot: a small Telegram marketplace, with all that docs/app-contract.md asks of an app image."""
