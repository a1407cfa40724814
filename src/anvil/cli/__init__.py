"""The command line: the only reader of arguments and environment, and the only one that prints."""
