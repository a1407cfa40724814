"""The actions of ``anvil sources``, a module each: its words, its example, and what it does."""
