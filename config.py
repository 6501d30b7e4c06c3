"""Configures pyinfra, which reads this file from the working directory for every deploy."""

from pyinfra import config

from deploys.config import environments
from deploys.converge import connection
from deploys.terminal import screen

# After the first converge the operator logs in as `deploy` and uses sudo (docs/getting-started.md, "Adopting").
config.SUDO = True
config.REQUIRE_PYINFRA_VERSION = ">=3.10,<3.11"

screen.install()
connection.install()
environments.check()
