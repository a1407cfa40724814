"""The data everything passes around: frozen, keyword-only, standard library only."""
