"""What the operator sees, and is asked, on the terminal."""
