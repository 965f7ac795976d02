"""How fast training is, side by side with TRL on the same work."""
