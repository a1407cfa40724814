"""Completion in a shell: what may stand where, found out from the parsers of the commands themselves.

``words`` walks the parser of the command along the words that are there already; ``values`` knows the names of things;
``scripts`` has the few lines of each shell that ask and offer the answer.
"""
