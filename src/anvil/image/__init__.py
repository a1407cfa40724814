"""Base images: from a lock of Debian packages to a read-only root tree for cells, with nothing but Python on the host.

wanted/*.json say what an image is for; ``resolve`` turns that into a lock (apt's solver, in a cell); ``build`` turns a
lock into a tree: ``deb`` and ``unpack`` read the packages, ``bootstrap`` writes what their own set-up scripts need and
runs them in a cell, ``tidy`` makes the result a function of the lock.
"""
