"""What kubectl and oc say when they fail, as errors of ours; what they have printed is kept as they printed it."""

from __future__ import annotations

import pytest

from ipython_builder.errors import BuilderError, Unavailable, UsageError
from ipython_builder.platforms import kubectl
from ipython_builder.platforms.kubectl import Kubectl, Place

OC = Kubectl("oc", "openshift", Place("lab"))
KUBECTL = Kubectl("kubectl", "kubernetes", Place("lab", "work"))

SAID: list[tuple[str, type[BuilderError], str, str]] = [
    (
        "error: You must be logged in to the server (Unauthorized)",
        *(Unavailable, "you are not logged in", "oc login"),
    ),
    (
        (
            'Error from server (Forbidden): secrets is forbidden: User "dev" cannot list resource "secrets" in API '
            'group "" in the namespace "lab"'
        ),
        *(BuilderError, "you may not do that there", "the role `edit`"),
    ),
    (
        (
            'Error from server (Forbidden): error when creating "STDIN": pods "x" is forbidden: exceeded quota: '
            "small, requested: pods=1, used: pods=2, limited: pods=2"
        ),
        *(BuilderError, "quota", "a larger quota"),
    ),
    (
        'Error from server: admission webhook "policy.example.org" denied the request: no routes here',
        *(BuilderError, "the cluster's rules refuse it", "who runs the cluster"),
    ),
    (
        "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?",
        *(Unavailable, "the cluster does not answer", "cluster-info"),
    ),
    (
        "Unable to connect to the server: dial tcp: lookup nowhere.example.org: no such host",
        *(Unavailable, "the cluster does not answer", "cluster-info"),
    ),
    (
        'Error from server (NotFound): namespaces "none" not found',
        *(UsageError, "there is no such namespace", "--namespace"),
    ),
    ('error: context "none" does not exist', *(UsageError, "there is no such context", "get-contexts")),
    ("error: cannot locate context none", *(UsageError, "there is no such context", "get-contexts")),
    (
        'error: the server doesn\'t have a resource type "buildconfig"',
        *(BuilderError, "does not know what is asked for", "--on kubernetes"),
    ),
    ("error: something new", *(BuilderError, "something new", "mend what it names")),
]


@pytest.mark.parametrize(("said", "kind", "words", "hint"), SAID)
def test_what_is_said_is_understood(said: str, kind: type[BuilderError], words: str, hint: str) -> None:
    error = kubectl.failure("it cannot be made", said, OC)
    assert type(error) is kind
    assert error.message.startswith("it cannot be made")
    assert words in error.message
    assert said.splitlines()[-1] in error.message, "their own words are there too"
    assert hint in (error.hint or "")


def test_a_command_line_names_the_place() -> None:
    assert KUBECTL.argv("get", "pods") == [
        *("kubectl", "--context=work", "--namespace=lab"),
        *("get", "pods"),
    ]


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="oc is not on PATH"):
        kubectl.client("openshift", Place())
