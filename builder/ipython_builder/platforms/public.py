"""How a notebook gets a public host name on plain Kubernetes: by an Ingress or at a Gateway. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from ipython_builder import cluster
from ipython_builder.errors import UsageError

Object = dict[str, Any]

OWN = "ipython-builder.github.io/"  # before what we note on objects
URL = f"{OWN}url"
GATEWAYS = "gateways.gateway.networking.k8s.io"
ROUTES = "httproutes.gateway.networking.k8s.io"
_PART = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_PART}([.]{_PART})*")

# Who may reach a notebook, in whatever namespace: pods with the label that the Helm charts of ingress-nginx,
# Traefik, HAProxy, Contour and Envoy Gateway give theirs, or the one that Gateway API (GEP-1762) has for what
# serves a Gateway.
ENTRANCES: list[Object] = [
    {
        "namespaceSelector": {},
        "podSelector": {
            "matchExpressions": [
                {
                    "key": "app.kubernetes.io/name",
                    "operator": "In",
                    "values": [
                        *("ingress-nginx", "traefik", "kubernetes-ingress", "haproxy-ingress", "contour"),
                        "envoy",
                    ],
                }
            ]
        },
    },
    {
        "namespaceSelector": {},
        "podSelector": {
            "matchExpressions": [{"key": "gateway.networking.k8s.io/gateway-name", "operator": "Exists"}]
        },
    },
]


@dataclass(frozen=True)
class Public:
    """A public host name, and what serves it.

    Attributes:
        host: None where nothing was said: what there is stays. Empty: there shall be none.
        tls_secret: the Secret with the certificate, where an Ingress serves it.
        ingress_class: of that Ingress; empty for the cluster's own choice.
        gateway: NAME or NAMESPACE/NAME of the Gateway that serves it; empty for an Ingress. These three are
            None, too, where nothing was said.
        secure: whether that Gateway speaks HTTPS, with a certificate of its own.
    """

    host: str | None = None
    tls_secret: str | None = None
    ingress_class: str | None = None
    gateway: str | None = None
    secure: bool = True

    def after(self, before: Public) -> Public:
        """What holds when this is said of what was `before`: what is not said stays."""
        if self.host == "":
            return Public("")
        said = (self.tls_secret, self.ingress_class, self.gateway)
        served = self if any(one is not None for one in said) else before
        return replace(served, host=before.host if self.host is None else self.host)

    def check(self) -> None:
        """See that a host name is one, and that what belongs to it comes with it.

        Raises:
            UsageError: it is none, or is missing.
        """
        if self.host and not (_HOST.fullmatch(self.host) and len(self.host) <= 253):
            raise UsageError(f"--host {self.host!r} is no host name", "write it as in notebooks.example.org")
        ingress = {"--tls-secret": self.tls_secret, "--ingress-class": self.ingress_class}
        for name, value in (ingress | {"--gateway": self.gateway}).items():
            if value and not self.host:
                raise UsageError(f"{name} belongs to a public host name", "name it with --host")
        for name, value in ingress.items():
            if value and self.gateway:
                raise UsageError(
                    f"{name} is for an Ingress, and --gateway was named", "leave one of them out"
                )
        if self.gateway and not re.fullmatch(rf"({_PART}/)?{_HOST.pattern}", self.gateway):
            raise UsageError(
                f"--gateway {self.gateway!r} is no name of a Gateway", "write NAME or NAMESPACE/NAME"
            )

    @property
    def parent(self) -> dict[str, str]:
        """The Gateway, as a route names it."""
        namespace, _, name = (self.gateway or "").rpartition("/")
        return {"name": name} | ({"namespace": namespace} if namespace else {})

    @property
    def url(self) -> str:
        """The notebook's address; empty where it has none."""
        tls = self.secure if self.gateway else bool(self.tls_secret)
        return f"http{'s' if tls else ''}://{self.host}/" if self.host else ""

    def served(self, route: Object) -> Object:
        """What serves it, for the Route of OpenShift's templates."""
        name = route["metadata"]["name"]
        made = self._route(name) if self.gateway else self._ingress(name)
        made["metadata"]["labels"] = route["metadata"].get("labels", {})
        made["metadata"]["annotations"] |= {URL: self.url}
        return made

    def _ingress(self, name: str) -> Object:
        backend = {"service": {"name": name, "port": {"number": cluster.VIEWER_PORT}}}
        spec: Object = {
            "rules": [
                {
                    "host": self.host,
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                }
            ]
        }
        if self.ingress_class:
            spec["ingressClassName"] = self.ingress_class
        if self.tls_secret:
            spec["tls"] = [{"hosts": [self.host], "secretName": self.tls_secret}]
        # A notebook's connections are silent for as long as its author thinks.
        annotations = {
            "nginx.ingress.kubernetes.io/proxy-read-timeout": "86400",
            "nginx.ingress.kubernetes.io/proxy-send-timeout": "86400",
            "nginx.ingress.kubernetes.io/proxy-body-size": "0",
        }
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": name, "annotations": annotations},
            "spec": spec,
        }

    def _route(self, name: str) -> Object:
        rule = {
            "backendRefs": [{"name": name, "port": cluster.VIEWER_PORT}],
            "timeouts": {"request": "0s"},  # none
        }
        return {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": name, "annotations": {}},
            "spec": {"parentRefs": [self.parent], "hostnames": [self.host], "rules": [rule]},
        }


UNSAID = Public()
