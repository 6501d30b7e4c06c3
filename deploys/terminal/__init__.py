"""The output and the questions on the operator's terminal."""
