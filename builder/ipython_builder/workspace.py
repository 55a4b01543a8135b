"""A running viewer as a program sees it: log in, read and write notebooks, execute one [requests].

Only the viewer's public REST and websocket interface is used, with the password a person would type, so this
is the same on every platform that can name a URL.
"""

from __future__ import annotations

import json
import queue
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin

import requests

from ipython_builder.errors import BuilderError, RepositoryError, Unavailable

LOOK = 2.0  # seconds of silence after which a kernel is asked for whether it lives
TIMEOUT = 30.0  # seconds for one request that a healthy viewer answers at once


@dataclass(frozen=True)
class CellDone:
    """A code cell that has run.

    Attributes:
        position: 1 for the notebook's first cell, text cells counted.
        code_cells, nth: how many code cells are run, and which of them this was.
        failed: its error as ``Name: value``, or None.
        first_line: of its source.
    """

    position: int
    nth: int
    code_cells: int
    first_line: str
    seconds: float
    failed: str | None


class Workspace:
    """A logged-in session with a viewer."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url if url.endswith("/") else url + "/"
        self.session = requests.Session()
        # Our viewer, not a proxy's idea of it: no HTTP_PROXY may see a loopback URL or the password.
        self.session.trust_env = not re.match(r"https?://(127\.|localhost|\[::1\])", self.url)
        self._log_in(password)

    def _log_in(self, password: str) -> None:
        try:
            page = self.session.get(urljoin(self.url, "login"), timeout=TIMEOUT)
            answer = self.session.post(
                urljoin(self.url, "login"),
                data={"password": password, "_xsrf": self.session.cookies.get("_xsrf", "")},
                allow_redirects=False,
                timeout=TIMEOUT,
            )
        except requests.RequestException as error:
            raise Unavailable(
                f"the viewer at {self.url} does not answer: {_reason(error)}", "look at `status`"
            ) from None
        if answer.status_code != 302:
            what = "refuses the password" if page.ok else f"answers with {page.status_code}"
            raise Unavailable(
                f"the viewer at {self.url} {what}", "`ipython-builder password` shows the right one"
            )

    def request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """One REST call; `path` is below the viewer's URL and already quoted.

        Raises:
            Unavailable: no answer, or one that says that the viewer is broken.
        """
        headers = {"X-XSRFToken": self.session.cookies.get("_xsrf", "")}
        try:
            answer = self.session.request(
                method, urljoin(self.url, path), headers=headers, timeout=TIMEOUT, **arguments
            )
        except requests.RequestException as error:
            raise Unavailable(
                f"the viewer at {self.url} does not answer: {_reason(error)}", "look at `status`"
            ) from None
        if answer.status_code >= 500:
            raise Unavailable(
                f"the viewer failed at {path}: {answer.status_code} {_message(answer)}", "see its log"
            )
        return answer

    def read(self, path: str) -> dict[str, Any]:
        """A notebook of the viewer as nbformat JSON.

        Raises:
            RepositoryError: there is no such notebook, or it is not one.
        """
        answer = self.request(
            "GET", f"api/contents/{quote(path)}", params={"type": "notebook", "content": "1"}
        )
        if answer.status_code == 404:
            raise RepositoryError(f"there is no notebook {path!r} in the workspace", self._nearest(path))
        if not answer.ok:
            raise RepositoryError(
                f"{path} is not a notebook that can be read: {_message(answer)}", "mend the file"
            )
        content: dict[str, Any] = answer.json()["content"]
        return content

    def write(self, path: str, notebook: dict[str, Any]) -> None:
        """Save a notebook in the viewer's workspace.

        Raises:
            BuilderError: it cannot be saved there.
        """
        body = {"type": "notebook", "format": "json", "content": notebook}
        answer = self.request("PUT", f"api/contents/{quote(path)}", data=json.dumps(body))
        if not answer.ok:
            raise BuilderError(
                f"{path} cannot be saved in the workspace: {_message(answer)}", "name a file with -o"
            )

    def _nearest(self, path: str) -> str:
        import difflib

        folder = path.rpartition("/")[0]
        answer = self.request(
            "GET", f"api/contents/{quote(folder)}", params={"type": "directory", "content": "1"}
        )
        there = [e["path"] for e in answer.json()["content"] if e["type"] == "notebook"] if answer.ok else []
        near = difflib.get_close_matches(path, there, n=1)
        return (
            f"did you mean {near[0]}?" if near else f"there are: {', '.join(there) or 'none in that folder'}"
        )

    def execute(
        self,
        path: str,
        notebook: dict[str, Any],
        *,
        cells: range | None = None,
        timeout: float | None = None,
        allow_errors: bool = False,
        on_cell: Callable[[CellDone], None] = lambda done: None,
    ) -> str | None:
        """Run a notebook's code cells in a new kernel of the viewer; outputs go into `notebook` as they come.

        Args:
            path: where the notebook is, or would be, in the workspace: its kernel starts in that folder.
            cells: positions (from 1) to run; None for all.
            timeout: seconds for one cell.
            allow_errors: go on after a cell that failed.

        Returns:
            The first error as one line, or None. What ran keeps its output in either case.

        Raises:
            Unavailable: the viewer or its kernel cannot be had.
        """
        chosen = [
            (position, cell)
            for position, cell in enumerate(notebook["cells"], 1)
            if cell["cell_type"] == "code"
            and "".join(cell["source"]).strip()
            and (cells is None or position in cells)
        ]
        body = {
            "path": path,
            "name": path.rpartition("/")[2],
            "type": "notebook",
            "kernel": {"name": self._kernel_for(notebook)},
        }
        answer = self.request("POST", "api/sessions", data=json.dumps(body))
        if not answer.ok:
            raise Unavailable(
                f"the viewer starts no kernel for {path}: {_message(answer)}", "see the viewer's log"
            )
        session = answer.json()
        first_error = None
        try:
            kernel = _Kernel(self, session["kernel"]["id"])
            try:
                for nth, (position, cell) in enumerate(chosen, 1):
                    started = time.monotonic()
                    failed = kernel.run(cell, timeout)
                    line = "".join(cell["source"]).strip().partition("\n")[0]
                    on_cell(CellDone(position, nth, len(chosen), line, time.monotonic() - started, failed))
                    if failed:
                        first_error = first_error or f"cell {position} failed: {failed}"
                        if not allow_errors or kernel.dead:
                            break
            finally:
                kernel.close()
        finally:
            self.request("DELETE", f"api/sessions/{session['id']}")
        return first_error

    def _kernel_for(self, notebook: dict[str, Any]) -> str:
        """The kernel the notebook names, or, where that is not there (``python2``), the repository's."""
        specs = self.request("GET", "api/kernelspecs").json()
        wanted = notebook.get("metadata", {}).get("kernelspec", {}).get("name")
        chosen: str = wanted if wanted in specs["kernelspecs"] else specs["default"]
        return chosen


class _Kernel:
    """A kernel of the viewer, spoken to over its websocket."""

    def __init__(self, workspace: Workspace, kernel_id: str) -> None:
        from jupyter_kernel_client.wsclient import KernelWebSocketClient

        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in workspace.session.cookies)
        self.dead = False
        self.workspace = workspace
        self.path = f"api/kernels/{kernel_id}"
        self.displays: dict[str, list[Any]] = {}  # display id -> outputs that show it, for live pictures
        endpoint = re.sub(r"^http", "ws", urljoin(workspace.url, f"{self.path}/channels"))
        self.client = KernelWebSocketClient(endpoint, headers={"Cookie": cookies})
        self.client.start_channels(stdin=False, hb=False)
        if not self.client.channels_running:
            raise Unavailable("the viewer does not open a websocket to the kernel", "see the viewer's log")
        self.client.allow_stdin = False  # nobody is there to answer input()

    def close(self) -> None:
        app = self.client.kernel_socket
        if app is not None and app.sock is not None and app.sock.sock is not None:
            # Its reader sleeps ten seconds at a time and does not notice that its socket was closed; the end
            # of the stream wakes it, if it is given the time to see it.
            app.keep_running = False
            app.sock.sock.shutdown(socket.SHUT_RDWR)
            self.client.connection_thread.join(2)
        self.client.stop_channels()

    def run(self, cell: dict[str, Any], timeout: float | None) -> str | None:
        """Execute a cell to its end; returns its error as one line."""
        cell["outputs"] = []
        cell["execution_count"] = None
        asked = self.client.execute("".join(cell["source"]), allow_stdin=False)
        deadline = time.monotonic() + timeout if timeout else None
        clear_first = False
        while True:
            left = deadline - time.monotonic() if deadline else LOOK
            if left <= 0:
                self.workspace.request("POST", f"{self.path}/interrupt")
                return self._error(cell, "CellTimeout", f"not done after {timeout:g} s")
            try:
                message = self.client.get_iopub_msg(timeout=min(left, LOOK))
            except queue.Empty:
                if not self._lives():
                    return self._died(cell)
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] in ("restarting", "autorestarting", "dead"):
                return self._died(cell)
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind == "execute_input":
                cell["execution_count"] = content["execution_count"]
            elif kind == "clear_output":
                clear_first = bool(content.get("wait"))
                if not clear_first:
                    cell["outputs"].clear()
            elif kind == "update_display_data":
                self._update(content)
            elif kind in ("stream", "display_data", "execute_result", "error"):
                if clear_first:
                    cell["outputs"].clear()
                    clear_first = False
                self._append(cell, message)
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        return f"{errors[-1]['ename']}: {errors[-1]['evalue']}" if errors else None

    def _append(self, cell: dict[str, Any], message: dict[str, Any]) -> None:
        from nbformat.v4 import output_from_msg

        output = output_from_msg(message)
        last = cell["outputs"][-1] if cell["outputs"] else None
        if (
            last
            and output["output_type"] == "stream" == last["output_type"]
            and output["name"] == last["name"]
        ):
            last["text"] += output["text"]
            return
        cell["outputs"].append(output)
        display = message["content"].get("transient", {}).get("display_id")
        if display:
            self.displays.setdefault(display, []).append(output)

    def _update(self, content: dict[str, Any]) -> None:
        for output in self.displays.get(content.get("transient", {}).get("display_id", ""), []):
            output["data"], output["metadata"] = content["data"], content["metadata"]

    def _lives(self) -> bool:
        if not self.client.channels_running:
            return False
        try:
            return self.workspace.request("GET", self.path).ok
        except Unavailable:
            return False

    def _died(self, cell: dict[str, Any]) -> str:
        self.dead = True
        return self._error(
            cell, "DeadKernel", "the kernel died while this cell ran (out of memory, or killed)"
        )

    @staticmethod
    def _error(cell: dict[str, Any], name: str, value: str) -> str:
        from nbformat.v4 import new_output

        cell["outputs"].append(new_output("error", ename=name, evalue=value, traceback=[f"{name}: {value}"]))
        return f"{name}: {value}"


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.reason or str(answer.status_code)


def _reason(error: requests.RequestException) -> str:
    """Without requests' repr of its own objects."""
    text = str(error.args[0]) if error.args else str(error)
    return text.rpartition("]")[2].strip(" :'\")") or type(error).__name__
