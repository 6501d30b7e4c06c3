"""What the operator sees and answers on the terminal."""
