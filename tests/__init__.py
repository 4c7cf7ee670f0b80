"""The test suite; see CONTRIBUTING or `make help` for how to run parts of it."""
