"""Failures of engines in their own words, as errors of ours."""

from __future__ import annotations

import pytest

from ipython_builder.build import words
from ipython_builder.errors import BuilderError, RepositoryError, Transient, Unavailable

PODMAN = """STEP 1/6: FROM localhost/ipython-builder
STEP 2/6: RUN --mount=type=bind,source=request : 1; umask 0002
… installing 12 packages
error: the requirements cannot be had together (asked for by requirements.txt):
  Because nosuch was not found in the package registry
 next: change the requirement that is named above
Error: building at STEP "RUN --mount=type=bind,source=request : 1; umask 0002": while running runtime: exit status 3
"""
DOCKER = """#7 [2/3] RUN : 1; umask 0002
#7 1.234 … installing 12 packages
#7 2.345 error: the package index cannot be reached:
#7 2.345   dns error
#7 2.345  next: look at the network
#7 ERROR: executor failed running [/bin/sh -c : 1; umask 0002]: exit code: 69
------
 > [2/3] RUN : 1; umask 0002:
#7 2.345  next: look at the network
------
executor failed running [/bin/sh -c : 1; umask 0002]: exit code: 69
"""


def test_what_our_own_step_said_is_passed_on() -> None:
    found = words.failure("podman cannot build the image", PODMAN)
    assert type(found) is RepositoryError
    assert found.message == (
        "the requirements cannot be had together (asked for by requirements.txt):\n"
        "  Because nosuch was not found in the package registry"
    )
    assert found.hint == "change the requirement that is named above"


def test_the_same_from_docker() -> None:
    found = words.failure("docker cannot build the image", DOCKER)
    assert type(found) is Unavailable
    assert found.message == "the package index cannot be reached:\n  dns error"
    assert found.hint == "look at the network"


def test_the_same_from_openshift() -> None:
    after = (
        "subprocess exited with status 3\n"
        'error: build error: error building at STEP "RUN /usr/libexec/s2i/assemble": exit status 3\n'
        'error: the build lab/ipcluster-x-1 status is "Failed"\n'
    )
    found = words.failure("the build of ipcluster-x failed", PODMAN.rpartition("Error: ")[0] + after)
    assert type(found) is RepositoryError
    assert found.hint == "change the requirement that is named above"
    others = words.failure("the build of ipcluster-x failed", after)
    assert others.message.startswith("the build of ipcluster-x failed:\n")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("Error: committing: write /var/lib/x: no space left on device", BuilderError, "the disk is full"),
        ("ERROR: Cannot connect to the Docker daemon at unix:///x. Is it?", Unavailable, "Cannot connect"),
        ("#5 ERROR: something\nexit code: 7", BuilderError, "something"),
        ("Error: database is locked", Transient, "database is locked"),
    ],
)
def test_what_engines_say_of_themselves(text: str, kind: type[BuilderError], message: str) -> None:
    found = words.failure("podman cannot build the image", text)
    assert type(found) is kind
    assert message in found.message
    assert found.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Error: unauthorized: authentication required", "log in first"),
        ("denied: requested access to the resource is denied", "log in first"),
        ("dial tcp 127.0.0.1:5999: connect: connection refused", "look at the registry's name"),
    ],
)
def test_registries(text: str, hint: str) -> None:
    noise = 'Copying blob sha256:1234\ntime="2026" level=warning msg="Failed, retrying"\n'
    found = words.registry_failure("x cannot be pushed", noise + text)
    assert type(found) is Unavailable
    assert found.message == f"x cannot be pushed:\n  {text}"
    assert hint in (found.hint or "")


def test_an_image_that_is_not_there_is_no_failure_of_the_engine() -> None:
    for text in (
        'Error: inspecting object: unable to inspect "x": no such image x: x: image not known',
        "Error: No such image: x",
        'error locating image "x": x: image not known',
    ):
        assert words.no_such_image(text)
    assert not words.no_such_image("Cannot connect to the Docker daemon")


def test_long_steps_are_cut() -> None:
    text = (
        f'Error: building at STEP "RUN --mount=type=cache {"x " * 500}": while running runtime: exit status 1'
    )
    assert (
        words.end(text)
        == '  Error: building at STEP "RUN --mount=type=cache …": while running runtime: exit status 1'
    )
