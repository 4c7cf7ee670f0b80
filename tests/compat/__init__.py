"""Other projects test suites over our server."""
