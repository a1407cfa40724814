"""The commands, one module each: adding a command adds a file.

A command module has a docstring whose first line is its help, ``EXAMPLE`` (a line of use), ``add_arguments(parser)``
and ``run(args) -> int`` (the exit code).
"""
