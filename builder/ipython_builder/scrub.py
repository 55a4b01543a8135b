"""The environment an installer runs in: what of the caller's reaches pip, uv, git and the builds they start.

Installing may run code that the repository chose (an sdist, a git line), and uv expands ``${VAR}`` in
requirements. So a list says what passes, and everything else (tokens, passwords, cloud keys) stays behind.
Pure: two inputs, one dictionary.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ipython_builder.settings import Settings

# Finding programs and the user's own files (.netrc, .ssh, pip.conf, uv.toml), speaking their language.
_PLACES = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_CONFIG_HOME")
# An interpreter of a `module load` or a software collection does not even start without it.
_LIBRARIES = ("LD_LIBRARY_PATH",)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
# How to reach an index; which one, and the authorities, come from the settings.
_INDEX = ("PIP_CONFIG_FILE", "UV_CONFIG_FILE", "PIP_TRUSTED_HOST", "UV_INSECURE_HOST", "PIP_CLIENT_CERT",
          "SSL_CLIENT_CERT", "PIP_DEFAULT_TIMEOUT", "UV_HTTP_TIMEOUT")  # fmt: skip
# Private git lines: the agent signs, no key is handed over.
_GIT = ("SSH_AUTH_SOCK", "GIT_SSH", "GIT_SSH_COMMAND")
_PASSED = frozenset(_PLACES + _LIBRARIES + _PROXIES + tuple(p.lower() for p in _PROXIES) + _INDEX + _GIT)

# Each installer, and what it runs, has its own name for the same PEM file.
_CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
_SYSTEM_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def installer_environ(settings: Settings, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment for uv, pip, pip-tools and git when they install for a repository.

    Args:
        settings: index, authorities and cache come from here, whoever set them.
        environ: the caller's (None: this process's).
    """
    environ = os.environ if environ is None else environ
    result = {name: value for name, value in environ.items() if name in _PASSED or name.startswith("LC_")}
    if "PATH" not in result:
        result["PATH"] = os.defpath
    result |= {
        # uv would try for many seconds to download an interpreter that it cannot find by version.
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_CACHE_DIR": environ.get("UV_CACHE_DIR") or str(settings.cache_dir / "uv"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # Nobody is there to answer: a question must be a failure that says so.
        "PIP_NO_INPUT": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "NO_COLOR": "1",
    }
    if "GIT_SSH" not in result:
        result.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    return result | _authorities(settings, environ) | _indexes(settings)


def index_secrets(settings: Settings) -> tuple[str, ...]:
    """The passwords and tokens in the settings' index URLs: what `commands.run` must hide in all output."""
    urls = (settings.index_url or "", *settings.extra_index_urls)
    found = []
    for url in urls:
        credentials, at, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
        if at:
            user, _, password = credentials.partition(":")
            found.append(password or user)
    return tuple(found)


def _authorities(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    if settings.ca_bundle is not None:
        return dict.fromkeys(_CA_VARIABLES, str(settings.ca_bundle.absolute()))
    passed = {name: environ[name] for name in (*_CA_VARIABLES, "SSL_CERT_DIR") if environ.get(name)}
    if any(os.path.exists(store) for store in _SYSTEM_STORES):
        # pip and git use the system's store by themselves; uv has to be told (the second is its older name).
        passed |= {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}
    return passed


def _indexes(settings: Settings) -> dict[str, str]:
    result: dict[str, str] = {}
    if settings.index_url:
        result |= {"UV_DEFAULT_INDEX": settings.index_url, "PIP_INDEX_URL": settings.index_url}
    if settings.extra_index_urls:
        extra = " ".join(settings.extra_index_urls)
        result |= {"UV_INDEX": extra, "PIP_EXTRA_INDEX_URL": extra}
    return result
