"""Where containers run: one module a backend."""
