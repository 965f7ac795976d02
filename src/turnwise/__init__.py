"""Reinforcement learning of language models, turn by turn."""
