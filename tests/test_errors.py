"""The tree of errors is the one that its docstring draws."""

from __future__ import annotations

import re

from ipython_builder import control, errors
from ipython_builder.errors import BuilderError


def test_the_drawing_is_the_tree() -> None:
    drawn = dict(re.findall(r"^[ ├└─]+(\w+) +(\d+) ", errors.__doc__ or "", re.MULTILINE))
    there = {
        name: str(value.exit_code)
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BuilderError)
    }
    assert drawn == there
    assert all(vars(errors)[name].__base__ is BuilderError for name in there if name != "BuilderError")


def test_an_error_has_a_message_and_perhaps_a_hint() -> None:
    error = BuilderError("the disk is full", "free some space")
    assert (str(error), error.message, error.hint) == (
        "the disk is full",
        "the disk is full",
        "free some space",
    )
    assert BuilderError("x").hint is None


def test_no_supervisor_is_an_ordinary_failure() -> None:
    assert control.NoSupervisor("x").exit_code == 1
