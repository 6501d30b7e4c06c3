"""pyinfra reads this file from the working directory, whatever the deploy. Here it gets to know the operator's side."""

from pyinfra import config

from deploys.config import environments
from deploys.converge import connection
from deploys.terminal import screen

# The operator is `deploy` with sudo from the first converge on (docs/getting-started.md, "Adopting").
config.SUDO = True
config.REQUIRE_PYINFRA_VERSION = ">=3.10,<3.11"

screen.install()
connection.install()
environments.check()
