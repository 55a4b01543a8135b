"""Where a cluster can run: one small protocol (`base`), one module a platform."""
