"""A plan as text."""

from __future__ import annotations

import pytest

from ipython_builder.build.containerfile import text
from ipython_builder.build.plan import Command, Copy, Facts, Labels, Plan, Run, Variables, make


def test_every_step() -> None:
    steps = (
        Variables({"B": "x", "A": "1"}),
        Run("dependencies", "true && false", ("--mount=type=cache,target=/c", "--mount=type=secret,id=s")),
        Copy("source", "source/opt", "/opt"),
        Labels({"team": "the physicists"}),
        Command(("/usr/libexec/s2i/run", 'a "b"')),
    )
    assert text(Plan("localhost/ipython-builder", steps)) == (
        "FROM localhost/ipython-builder\n"
        "ENV \\\n    A=1 \\\n    B=x\n"
        "# dependencies\n"
        "RUN \\\n    --mount=type=cache,target=/c \\\n    --mount=type=secret,id=s \\\n    true && false\n"
        "# source\n"
        "COPY --chown=1001:0 source/opt/ /opt/\n"
        'LABEL \\\n    team="the physicists"\n'
        'CMD ["/usr/libexec/s2i/run", "a \\"b\\""]\n'
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain-1.0/x:y+z", "plain-1.0/x:y+z"),
        ("", '""'),
        ('say "$HOME" \\n', '"say \\"\\$HOME\\" \\\\n"'),
        ("a#b = c", '"a#b = c"'),
    ],
)
def test_values_are_what_they_are(value: str, written: str) -> None:
    assert text(Plan("b", (Labels({"k": value}),))) == f"FROM b\nLABEL \\\n    k={written}\n"


def test_the_same_plan_is_the_same_text() -> None:
    one = make("b", Facts(frozenset(), "d", labels={"a": "1", "b": "2"}))
    other = make("b", Facts(frozenset(), "d", labels={"b": "2", "a": "1"}))
    assert text(one) == text(other)
