"""One run with everything in it, served; see `tests.server_fixture`."""
