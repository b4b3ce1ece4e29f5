"""Docker engines for tests: a fake one, and a real one of the test's own."""
