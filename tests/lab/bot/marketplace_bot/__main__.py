"""``python -m marketplace_bot web | worker | migrate | schema --json``."""

import sys

from marketplace_bot.cli import main

sys.exit(main())
