"""What stands behind the commands that an operator types."""
