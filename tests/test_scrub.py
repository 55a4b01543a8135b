"""What of the caller's environment reaches an installer: the list, and nothing but the list."""

from __future__ import annotations

from pathlib import Path

from ipython_builder.scrub import index_secrets, installer_environ
from ipython_builder.settings import Settings

PLAIN = Settings(cache_dir=Path("/c"), state_dir=Path("/s"), data_dir=Path("/d"))


def test_secrets_of_the_caller_stay_behind() -> None:
    caller = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "AWS_SECRET_ACCESS_KEY": "x",
        "IPYTHON_CLUSTER_KEY": "x",
        "GITHUB_TOKEN": "x",
        "PYTHONPATH": "/mine",
        "VIRTUAL_ENV": "/venv",
        "PIP_FIND_LINKS": "/wheels",
        "UV_INDEX_INTERNAL_PASSWORD": "x",
        "UV_PYTHON": "3.9",
    }
    result = installer_environ(PLAIN, caller)
    assert result["PATH"] == "/bin"
    assert result["HOME"] == "/home/me"
    assert not set(result) & (set(caller) - {"PATH", "HOME"})
    assert "x" not in result.values()


def test_language_proxy_and_agent_pass() -> None:
    caller = {
        "LC_CTYPE": "C.UTF-8",
        "https_proxy": "http://p:1",
        "NO_PROXY": "localhost",
        "SSH_AUTH_SOCK": "/a",
    }
    assert installer_environ(PLAIN, caller).items() >= caller.items()


def test_an_empty_environment_still_finds_programs() -> None:
    assert installer_environ(PLAIN, {})["PATH"]


def test_the_package_cache_is_ours_unless_the_caller_has_one() -> None:
    assert installer_environ(PLAIN, {})["UV_CACHE_DIR"] == "/c/uv"
    assert installer_environ(PLAIN, {"UV_CACHE_DIR": "/big"})["UV_CACHE_DIR"] == "/big"
    assert installer_environ(PLAIN, {"UV_PYTHON_DOWNLOADS": "automatic"})["UV_PYTHON_DOWNLOADS"] == "never"


def test_a_ca_bundle_is_told_to_everybody_and_replaces_the_rest() -> None:
    settings = PLAIN.with_flags(ca_bundle=Path("/ca.pem"))
    result = installer_environ(settings, {"SSL_CERT_FILE": "/other.pem", "SSL_CERT_DIR": "/certs"})
    names = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
    assert {result[name] for name in names} == {"/ca.pem"}
    assert "SSL_CERT_DIR" not in result
    assert "UV_NATIVE_TLS" not in result


def test_indexes_come_from_the_settings_alone() -> None:
    settings = PLAIN.with_flags(
        index_url="https://me:pw@a/simple", extra_index_urls=("https://b/", "https://tok@c/")
    )
    result = installer_environ(settings, {"PIP_INDEX_URL": "https://other/", "UV_INDEX": "https://other/"})
    assert result["UV_DEFAULT_INDEX"] == result["PIP_INDEX_URL"] == "https://me:pw@a/simple"
    assert result["UV_INDEX"] == result["PIP_EXTRA_INDEX_URL"] == "https://b/ https://tok@c/"
    assert index_secrets(settings) == ("pw", "tok")
    assert "PIP_INDEX_URL" not in installer_environ(PLAIN, {"PIP_INDEX_URL": "https://other/"})
