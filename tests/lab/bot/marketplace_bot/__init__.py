"""The stand-in bot: a small Telegram marketplace with everything that docs/reference/app-contract.md requires of an
image.
"""
