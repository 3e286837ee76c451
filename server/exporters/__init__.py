"""Runs as files: in their system's own formats and in plain HDF5 and NPZ, computed from slices."""
