"""Code on which all other packages of stackctl build."""
