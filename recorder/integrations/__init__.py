"""Records the samplers of single systems without changing their code.

Each module is one system's. Its `attach` takes a `TraceRecorder` and the user's own objects,
puts hooks and wrappers on them, and returns a context manager that takes them off again. No
upstream package is imported.
"""
