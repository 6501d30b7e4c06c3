"""pyinfra reads this file from the working directory, whatever the deploy."""

from pyinfra import config

# The operator is `deploy` with sudo from the first converge on (docs/first-droplet.md, "Adopting").
config.SUDO = True
config.REQUIRE_PYINFRA_VERSION = ">=3.10,<3.11"
