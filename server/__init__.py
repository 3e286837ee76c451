"""Serves what a store holds: slices, runs as files, and what is new, over HTTP."""
