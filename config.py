"""pyinfra reads this file from the working directory, whatever the deploy. Here it gets to know the operator's side."""

from pyinfra import config

from deploys import connection, places, terminal

# The operator is `deploy` with sudo from the first converge on (docs/getting-started.md, "Adopting").
config.SUDO = True
config.REQUIRE_PYINFRA_VERSION = ">=3.10,<3.11"

terminal.install()
connection.install()
places.check()
