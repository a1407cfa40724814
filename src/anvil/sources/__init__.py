"""Sources: what is pinned, where it may be had, and the one way it comes in."""
