"""The format of a trace archive: what recorder, server and clients agree on."""
