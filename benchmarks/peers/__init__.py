"""Servers that a user might pick instead, each in its own virtual environment, on the same run."""
