"""Recipes: configuration becomes objects here, and vetted runs have names."""
