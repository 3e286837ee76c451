"""Traces of the sampler `ising`: spins on a ring, cooled sweep by sweep."""
