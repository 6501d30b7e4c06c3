"""The operator's terminal: the output shown there, and the questions asked there."""
