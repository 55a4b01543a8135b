"""A package, so that what tests share is imported once, as ``tests.conftest`` and ``tests.workbench``."""
