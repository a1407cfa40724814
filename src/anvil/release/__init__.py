"""What may leave the forge: the output gate, sidecars, and publishing."""
