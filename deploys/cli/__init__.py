"""The programs behind the commands that an operator types."""
