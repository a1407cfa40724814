"""The cell: the sandbox in which everything of a recipe runs. Recipes are presumed hostile; this is the boundary.

``spec`` is the data, ``run`` makes and watches cells, ``process`` is the one door by which processes are started.
"""
