"""What the node's own parts ask its API server: JSON over HTTPS, as an administrator."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any

from tests.kubernetes.place import Place


class Refused(Exception):
    """The API server said no; `status` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """The API server of a node."""

    def __init__(self, place: Place) -> None:
        keys = place.runtime / "keys"
        self.address = place.address
        self.context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        self.context.load_cert_chain(keys / "admin.crt", keys / "admin.key")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What it answers.

        Raises:
            Refused: it answers with an error.
            OSError, http.client.HTTPException: it does not answer.
        """
        answer = self._answer(method, path, body, timeout=30)
        text = answer.read().decode(errors="replace")
        if answer.status >= 400:
            raise Refused(answer.status, text)
        is_json = (answer.headers.get("Content-Type") or "").startswith("application/json")
        return json.loads(text) if is_json else text

    def watch(self, path: str) -> Iterator[Any]:
        """Objects of a collection as they are, and again whenever one changes; ends after some minutes."""
        answer = self._answer("GET", f"{path}?watch=true&timeoutSeconds=300", None, timeout=330)
        if answer.status >= 400:
            raise Refused(answer.status, answer.read().decode(errors="replace"))
        for line in answer:
            event = json.loads(line)
            if event["type"] in ("ADDED", "MODIFIED"):
                yield event["object"]

    def _answer(self, method: str, path: str, body: Any, timeout: float) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection(self.address, 6443, timeout=timeout, context=self.context)
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json", "Connection": "close"})
        return connection.getresponse()
