"""Names of images, platforms and labels."""

from __future__ import annotations

import pytest

from ipython_builder.build import reference
from ipython_builder.errors import UsageError


@pytest.mark.parametrize(
    ("text", "host", "path", "tag"),
    [
        ("notebooks", None, "notebooks", "latest"),
        ("me/notebooks:v1", None, "me/notebooks", "v1"),
        ("registry.example.org/me/notebooks", "registry.example.org", "me/notebooks", "latest"),
        ("127.0.0.1:5000/a/b_c-d.e:1.0", "127.0.0.1:5000", "a/b_c-d.e", "1.0"),
        ("localhost/x", "localhost", "x", "latest"),
        ("[::1]:5000/x", "[::1]:5000", "x", "latest"),
        ("a__b/c--d", None, "a__b/c--d", "latest"),
    ],
)
def test_names(text: str, host: str | None, path: str, tag: str) -> None:
    found = reference.parse(text)
    assert (found.host, found.path, found.tag) == (host, path, tag)
    assert str(found) == f"{host + '/' if host else ''}{path}:{tag}"
    assert reference.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "Notebooks", "a b", "a:b:c", "-a", "a/", "/a", "a//b", "a:", "a:-x", "a..b", "a\n", "a@b", "ä"),
        *("a" * 256, "host.example/", "https://host.example/a", "a:" + "t" * 129, "$(id)", "--help", "Me/a"),
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError):
        reference.parse(text)


def test_capitals_are_answered_with_what_would_do() -> None:
    with pytest.raises(UsageError) as caught:
        reference.parse("MyImage:V1")
    assert caught.value.hint == "write myimage:v1"


def test_a_digest_is_what_an_image_is_built_on_and_not_what_is_made() -> None:
    text = f"host.example/a@sha256:{'0' * 64}"
    assert str(reference.parse(text)) == text
    with pytest.raises(UsageError, match="under a digest"):
        reference.target(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        *(
            ("127.0.0.1:5000/a", True),
            ("127.9.9.9/a", True),
            ("localhost:5000/a", True),
            ("[::1]:5000/a", True),
        ),
        *(("localhost/a", False), ("a", False), ("host.example/a", False), ("10.0.0.1:5000/a", False)),
        *(("127.0.0.1.evil.example/a", False), ("localhost.evil.example:5000/a", False)),
    ],
)
def test_only_this_machine_is_spoken_to_in_the_clear(text: str, loopback: bool) -> None:
    assert reference.parse(text).loopback is loopback


def test_platforms_and_labels() -> None:
    assert reference.platform("linux/arm64/v8") == "linux/arm64/v8"
    with pytest.raises(UsageError) as caught:
        reference.platform("linux/amd64,linux/arm64")
    assert caught.value.hint == "build one platform at a time"
    for text in ("linux", "Linux/amd64", "linux/amd64\n", "-o/x"):
        with pytest.raises(UsageError):
            reference.platform(text)
    assert reference.labels(("a.b/c=d=e", "x=")) == {"a.b/c": "d=e", "x": ""}
    for word in ("a", "=b", "a b=c", "a=\n", "-a=b"):
        with pytest.raises(UsageError):
            reference.labels((word,))
