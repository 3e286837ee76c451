"""Writing over HTTP: the one room of the server that knows the recorder.

A sampler without credentials for the store records through here, in one of two ways: a recorder
puts the very objects that it would put into a bucket (`keys`, `gateway`), or a program in any
language puts values. Nothing is kept here between two requests: all state is in the store, so any
worker or replica can take any of them.
"""
