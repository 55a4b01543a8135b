"""What strangers might hand us as a URL, a ref or a folder: judged before anything is fetched."""

from __future__ import annotations

import pytest

from ipython_builder import source
from ipython_builder.errors import UsageError


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-u",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c 'touch x'",
        "EXT::sh",
        "fd::17",
        "::x",
        "a+b.c::https://h/r",
        "https://h/r\nx",
        "https://h/\x00",
        "https://h/\x7f",
        "https://h/\x9b31m",
        "folder\tname",
        "ftp://h/r",
        "javascript://h/r",
        "git+https://h/r",
        "https://",
        "https:///path",
        "https://-oProxyCommand=x/r",
        "ssh://-oProxyCommand=x/r",
        "ssh://-oProxyCommand=x@h/r",
        "ssh://h/-r",
        "ssh://git:password@h/r",
        "git://me@h/r",
        "-oProxyCommand=x:r",
        "h:-r",
        "me@-h:r",
        "git:password@h:r",
        "https://h:port/r",
        "https://h/r?token=x",
        "https://h/r#main",
        "https://h ost/r",
        "https://u:p%0Aq@h/r",
        "https://h\\@evil/r",
        "file://otherhost/r",
        "file://relative",
    ],
)
def test_hostile_source(text: str) -> None:
    with pytest.raises(UsageError):
        source.parse(text)


@pytest.mark.parametrize(
    "ref",
    [
        "-x", "--upload-pack=x", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "@", "a@{1}",
        "/a", "a/", "a//b", ".a", "a/.b", "a.", "a.lock", "a.lock/b", "a\nb", "a\x00b", "a\x7f",
    ],
)  # fmt: skip
def test_hostile_ref(ref: str) -> None:
    with pytest.raises(UsageError):
        source.parse("https://h/r", ref=ref)


@pytest.mark.parametrize("context", ["/etc", "..", "a/../..", "-x", ".git", "a/.git/hooks", "a\nb", "a\\b"])
def test_hostile_context_dir(context: str) -> None:
    with pytest.raises(UsageError):
        source.parse("https://h/r", context_dir=context)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h.example/a/b.git", "https://h.example/a/b.git"),
        ("HTTPS://h/r", "https://h/r"),
        ("http://127.0.0.1:8080/@scope/r", "http://127.0.0.1:8080/@scope/r"),
        ("https://[::1]:8443/r", "https://[::1]:8443/r"),
        ("ssh://git@h:22/r", "ssh://git@h:22/r"),
        ("git@h.example:me/r.git", "git@h.example:me/r.git"),
        ("h:r", "h:r"),
        ("git://h/r", "git://h/r"),
        ("https://me:pass@h/r", "https://***@h/r"),
        ("https://me:p@ss@h/r", "https://***@h/r"),
        ("https://ghp_token@h/r", "https://***@h/r"),
    ],
)
def test_accepted(text: str, shown: str) -> None:
    parsed = source.parse(text, ref="", context_dir="./a//b/")
    assert (parsed.text, parsed.folder, parsed.ref, parsed.context_dir) == (shown, None, None, "a/b")
    assert "pass" not in repr(parsed)
    assert "ghp_" not in repr(parsed)


@pytest.mark.parametrize("ref", ["main", "feature/x-1", "v1.0", "refs/pull/3/head", "a" * 40, "0f3c2d1", "ü"])
def test_accepted_ref(ref: str) -> None:
    assert source.parse("https://h/r", ref=ref).ref == ref


@pytest.mark.parametrize(
    "text",
    [
        "ftp://me:hunter2@h/r",
        "https://me:hunter2@h:port/r",
        "https://me:hunter2/x@h/r",
        "https://me:hunter2@h/r?x",
        "https://me:hunter2@h/r\n",
        "ssh://me:hunter2@h/r",
        "me:hunter2@h:r",
        "me@x:hunter2@h:r",
    ],
)
def test_refusals_do_not_show_the_password(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        source.parse(text)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
