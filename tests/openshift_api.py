"""A stand-in for OpenShift's API server, in front of a real Kubernetes: what only OpenShift does, written by hand.

Nothing here is OpenShift. Its kinds are plain custom resources of the node, so that the node's own API server stores,
lists, watches, selects and applies them; every request goes there with the rights of whoever asks, except for what no
custom resource can do. That is answered here, after OpenShift's API types (github.com/openshift/api):

    instantiate, instantiatebinary    of a BuildConfig: makes a Build
    log                               of a Build
    imagestreamtags                   of what builds have made
    processedtemplates                by `ipython_builder.templates`, which tests compare with the real `oc`
    admission                         a Route gets a host name, an ImageStream a repository; the first build of a
                                      BuildConfig's ConfigChange
    image triggers                    of Deployments, a moment after they are there, as the controller does it

A build runs nothing. It says a few lines, and has made the image that it was told to.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from ipython_builder import templates
from ipython_builder.errors import UsageError
from tests.kubernetes.fixtures import Kubernetes
from tests.schemas import openshift
from tests.schemas.published import NotThere

Object = dict[str, Any]
APPS = "apps.example.org"  # where the router's host names are
REGISTRY = "image-registry.openshift-image-registry.svc:5000"  # which is not there: nothing is pushed
TRIGGERS = "image.openshift.io/triggers"
MICROSHIFT = ("route.openshift.io",)
KINDS = {
    "Template": ("template", "templates", []),
    "BuildConfig": ("build", "buildconfigs", ["bc"]),
    "Build": ("build", "builds", []),
    "ImageStream": ("image", "imagestreams", ["is"]),
    "ImageStreamTag": ("image", "imagestreamtags", ["istag"]),
    "Route": ("route", "routes", []),
}
GROUPS = tuple(sorted({f"{group}.openshift.io" for group, _, _ in KINDS.values()}))
_PATH = re.compile(
    r"/apis/(?P<group>[^/]+)/v1/namespaces/(?P<namespace>[^/]+)/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?$"
)
_HEAD = 1 << 16


def definitions() -> list[Object]:
    """The kinds, as the node learns them; the same for all tests, which share the node."""
    found: list[Object] = []
    for kind, (group, plural, short) in KINDS.items():
        names = {"kind": kind, "plural": plural, "singular": kind.lower(), "shortNames": short}
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        found.append(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{plural}.{group}.openshift.io"},
                "spec": {
                    "group": f"{group}.openshift.io",
                    "scope": "Namespaced",
                    "names": names,
                    "versions": [version],
                },
            }
        )
    return found


@dataclass
class Build:
    """What a build has got, and what it shall do.

    Attributes:
        request: what was posted to `instantiate`; of a binary build what was in its address.
        archive: what was sent to a binary build.
    """

    namespace: str
    config: str
    name: str
    request: Object
    archive: bytes = b""


@dataclass
class OpenShift:
    """One that is running.

    Attributes:
        image: what every build makes.
        groups: those that this cluster has; fewer for one that is less than an OpenShift.
        fails: what builds say that fail; None: they do not.
        shared: images of the project `openshift`, by image stream tag. It is no namespace: others use the node.
        builds: all that have run, the oldest first.
        wrong: what OpenShift's API server would have refused of objects that it got, as it says it.
        asked: method and path of every request.
        host, kubeconfig: where it is, for whoever has all rights.
    """

    kubernetes: Kubernetes
    image: str
    groups: tuple[str, ...] = GROUPS
    fails: str | None = None
    shared: dict[str, str] = field(default_factory=dict)
    builds: list[Build] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    host: str = ""
    kubeconfig: Path = Path()

    def config(self, token: str | None = None) -> Object:
        """A kubeconfig, of an administrator or with a token."""
        real = json.loads(self.kubernetes.kubeconfig.read_text())
        real["clusters"][0]["cluster"]["server"] = self.host
        real["users"][0]["user"] = {"token": token or _ADMIN}
        found: Object = real
        return found


_ADMIN = "the-administrator"  # nobody else's token is like that


@contextmanager
def running(kubernetes: Kubernetes, image: str, folder: Path) -> Iterator[OpenShift]:
    """One that runs while the block does; its kubeconfig is in `folder`."""
    made = OpenShift(kubernetes, image)
    server = _Server(made)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, loop).result(30)

    try:
        run(server.start())
        made.kubeconfig = folder / "openshift.conf"
        made.kubeconfig.write_text(json.dumps(made.config()))
        yield made
    finally:
        run(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@dataclass
class _Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    async def body(self) -> bytes:
        if self.header("transfer-encoding").lower() == "chunked":
            return b"".join([chunk async for chunk in _chunks(self.reader)])
        return await self.reader.readexactly(int(self.header("content-length") or 0))


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readline()
    await reader.readline()


async def _head(reader: asyncio.StreamReader) -> tuple[str, list[tuple[str, str]]]:
    first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
    pairs = [line.partition(":") for line in rest]
    return first, [(key, value.strip()) for key, _, value in pairs]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on bytes until there are no more."""
    try:
        while data := await reader.read(_HEAD):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, asyncio.IncompleteReadError):
        pass


class _Server:
    def __init__(self, made: OpenShift) -> None:
        self.made = made
        self.tasks: set[asyncio.Task[None]] = set()
        keys = made.kubernetes.place.kubeconfig.parent
        self.ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ours.load_cert_chain(keys / "apiserver.crt", keys / "apiserver.key")
        self.nobody = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        self.admin = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        self.admin.load_cert_chain(keys / "admin.crt", keys / "admin.key")

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.ours, limit=_HEAD)
        self.made.host = f"https://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self.server.close()
        left = list(self.tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _later(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(what)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- one request ----------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            first, headers = await _head(reader)
            method, target, _ = first.split(" ")
            self.made.asked.append(f"{method} {target}")
            await self._answer(_Request(method, target, headers, reader, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()

    async def _answer(self, request: _Request) -> None:
        group = re.match(r"/apis/([^/]+\.openshift\.io)(?:/|$)", request.path)
        if group and group[1] not in self.made.groups:
            return await _say(
                request, *_status(404, "NotFound", "the server could not find the requested resource")
            )
        if request.path == "/apis":
            return await self._groups(request)
        found = _PATH.match(request.path)
        if found is None:
            return await self._forward(request)
        group_name, namespace, plural, name, sub = found.group("group", "namespace", "plural", "name", "sub")
        if plural in ("imagestreamtags", "processedtemplates", "imagestreamimports") or sub in (
            "instantiate", "instantiatebinary", "log",
        ):  # fmt: skip
            if not await self._allowed(request, found):
                return None
            match sub or plural:
                case "imagestreamtags":
                    answer = await self._tag(namespace, name)
                case "processedtemplates":
                    answer = await self._process(request)
                case "instantiate" | "instantiatebinary":
                    answer = await self._instantiate(request, namespace, name, binary=sub != "instantiate")
                case "log":
                    return await self._log(request, namespace, name)
                case _:
                    answer = _status(404, "NotFound", "there is no registry")
            return await _say(request, *answer)
        if request.method in ("POST", "PATCH", "PUT") and (
            group_name in GROUPS or plural == "deployments"
        ) and not sub:  # fmt: skip
            return await self._admit(request, namespace, plural)
        return await self._forward(request)

    async def _allowed(self, request: _Request, found: re.Match[str]) -> bool:
        """Whether this one may look at these things, as the node says it; if not, they are told."""
        plural = "buildconfigs" if found["sub"] else "imagestreams"
        path = f"/apis/{found['group']}/v1/namespaces/{found['namespace']}/{plural}"
        if found["plural"] == "processedtemplates":
            path = f"/apis/template.openshift.io/v1/namespaces/{found['namespace']}/templates"
        code, _, content = await self._ask("GET", f"{path}?limit=1", token=request.header("authorization"))
        if code >= 400:
            await _say(request, code, content)
        return code < 400

    async def _open(self, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        mine = token in ("", f"Bearer {_ADMIN}")
        context = self.admin if mine else self.nobody
        return await asyncio.open_connection(
            self.made.kubernetes.place.address, 6443, ssl=context, limit=_HEAD
        )

    async def _send(
        self, method: str, target: str, headers: list[tuple[str, str]], upgrade: bool = False
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Begin a request to the node: one connection for each."""
        token = next((value for key, value in headers if key.lower() == "authorization"), "")
        reader, writer = await self._open(token)
        dropped = {"accept-encoding", "host"} | (set() if upgrade else {"connection"})
        kept = [(key, value) for key, value in headers if key.lower() not in dropped]
        if token == f"Bearer {_ADMIN}":
            kept = [(key, value) for key, value in kept if key.lower() != "authorization"]
        kept += [("Host", "kubernetes")] + ([] if upgrade else [("Connection", "close")])
        lines = "".join(f"{key}: {value}\r\n" for key, value in kept)
        writer.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
        return reader, writer

    async def _forward(self, request: _Request) -> None:
        """Ask the node, whatever it is; both sides' bytes as they come."""
        upgrade = "upgrade" in request.header("connection").lower()
        reader, writer = await self._send(request.method, request.target, request.headers, upgrade)
        back = asyncio.ensure_future(_pump(request.reader, writer))
        try:
            await _pump(reader, request.writer)
        finally:
            back.cancel()
            writer.close()

    async def _ask(
        self, method: str, target: str, content: Any = None, *, kind: str = "application/json", token: str = "",
        accept: str = "application/json",
    ) -> tuple[int, str, bytes]:  # fmt: skip
        """Ask the node and wait for all that it says: code, type of content, content."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode() if content else b""
        headers = [("Accept", accept), ("Content-Length", str(len(body))), ("Content-Type", kind)]
        if token:
            headers.append(("Authorization", token))
        reader, writer = await self._send(method, target, headers)
        try:
            writer.write(body)
            first, told = await _head(reader)
            answer = _Request("", "", told, reader, writer)
            sized = answer.header("transfer-encoding") or answer.header("content-length")
            said = await answer.body() if sized else await reader.read()
            return int(first.split(" ")[1]), answer.header("content-type"), said
        finally:
            writer.close()

    async def _groups(self, request: _Request) -> None:
        """What groups there are, without those that this cluster has not."""
        code, kind, content = await self._ask(
            "GET", request.target, token=request.header("authorization"), accept=request.header("accept")
        )
        hidden = set(GROUPS) - set(self.made.groups)
        if code == 200:
            every = json.loads(content)
            for field_name in ("items", "groups"):
                if field_name in every:
                    every[field_name] = [
                        one for one in every[field_name]
                        if (one["metadata"]["name"] if "metadata" in one else one["name"]) not in hidden
                    ]  # fmt: skip
            content = json.dumps(every).encode()
        await _say(request, code, content, kind)

    # -- what is admitted ------------------------------------------------------------------------------------

    async def _admit(self, request: _Request, namespace: str, plural: str) -> None:
        body = await request.body()
        whole = request.method != "PATCH" or "apply" in request.header("content-type")
        if whole:
            thing = yaml.safe_load(body)
            if thing.get("kind") in openshift.GROUPS:
                try:
                    self.made.wrong += [
                        f"{thing['kind']}: {one}" for one in openshift.errors(_without_nulls(thing))
                    ]
                except NotThere:
                    pass  # another test says so
        code, kind, content = await self._ask(
            request.method, request.target, body, kind=request.header("content-type"),
            token=request.header("authorization"), accept=request.header("accept"),
        )  # fmt: skip
        dry = "dryRun" in parse_qs(urlsplit(request.target).query)
        if code < 300 and not dry:
            match plural:
                case "routes":
                    content = await self._admit_route(json.loads(content))
                case "imagestreams":
                    content = await self._admit_stream(json.loads(content))
                case "buildconfigs":
                    await self._first_build(json.loads(content))
                case "deployments":
                    self._later(self._trigger(namespace))
        await _say(request, code, content, kind)

    async def _admit_route(self, route: Object) -> bytes:
        meta = route["metadata"]
        host = route["spec"].get("host") or f"{meta['name']}-{meta['namespace']}.{APPS}"
        change = {"spec": {"host": host}, "status": {"ingress": [{"host": host, "routerName": "default"}]}}
        return (
            await self._patch("route.openshift.io/v1", "routes", meta["namespace"], meta["name"], change)
        )[1]

    async def _admit_stream(self, stream: Object) -> bytes:
        name, namespace = stream["metadata"]["name"], stream["metadata"]["namespace"]
        change = {"status": {"dockerImageRepository": f"{REGISTRY}/{namespace}/{name}"}}
        return (await self._patch("image.openshift.io/v1", "imagestreams", namespace, name, change))[1]

    async def _patch(
        self, api: str, plural: str, namespace: str, name: str, change: Object, how: str = "merge-patch"
    ) -> tuple[int, bytes]:
        target = f"/apis/{api}/namespaces/{namespace}/{plural}/{name}?fieldManager=openshift"
        code, _, content = await self._ask("PATCH", target, change, kind=f"application/{how}+json")
        return code, content

    async def _first_build(self, config: Object) -> None:
        kinds = {one["type"] for one in config["spec"].get("triggers") or ()}
        if "ConfigChange" in kinds and not (config.get("status") or {}).get("lastVersion"):
            await self._make(config, {"triggeredBy": [{"message": "Build configuration change"}]}, b"")

    # -- builds ----------------------------------------------------------------------------------------------

    async def _instantiate(
        self, request: _Request, namespace: str, name: str, *, binary: bool
    ) -> tuple[int, bytes]:
        body = await request.body()
        target = f"/apis/build.openshift.io/v1/namespaces/{namespace}/buildconfigs/{name}"
        code, _, content = await self._ask("GET", target)
        if code != 200:
            return code, content
        config = json.loads(content)
        if not binary and config["spec"]["source"].get("type") == "Binary":
            told = "cannot instantiate a build that has no source"
            return _status(422, "Invalid", told)
        words = parse_qs(urlsplit(request.target).query)
        asked = {key: values[0] for key, values in words.items()} if binary else json.loads(body)
        build = await self._make(config, asked, body if binary else b"")
        return 201, json.dumps(build).encode()

    async def _make(self, config: Object, request: Object, archive: bytes) -> Object:
        name, namespace = config["metadata"]["name"], config["metadata"]["namespace"]
        number = ((config.get("status") or {}).get("lastVersion") or 0) + 1
        api = "build.openshift.io/v1"
        await self._patch(api, "buildconfigs", namespace, name, {"status": {"lastVersion": number}})
        owner = {
            "apiVersion": api, "kind": "BuildConfig", "name": name, "uid": config["metadata"]["uid"],
            "controller": True,
        }  # fmt: skip
        labels = config["metadata"].get("labels", {}) | {"buildconfig": name}
        build = {
            "apiVersion": api,
            "kind": "Build",
            "metadata": {"name": f"{name}-{number}", "labels": labels, "ownerReferences": [owner]},
            "spec": {key: config["spec"][key] for key in ("source", "strategy", "output")},
            "status": {
                "phase": "New",
                "config": {"kind": "BuildConfig", "name": name, "namespace": namespace},
            },
        }
        _, _, content = await self._ask("POST", f"/apis/{api}/namespaces/{namespace}/builds", build)
        made = Build(namespace, name, f"{name}-{number}", request, archive)
        self.made.builds.append(made)
        self._later(self._run(made))
        found: Object = json.loads(content)
        return found

    async def _run(self, build: Build) -> None:
        """A build in its phases."""
        for phase in ("Running", "Failed" if self.made.fails is not None else "Complete"):
            await asyncio.sleep(0.5)
            if phase == "Complete":
                tag = {"tag": "latest", "items": [{"dockerImageReference": self.made.image}]}
                change = {"status": {"tags": [tag]}}
                await self._patch(
                    "image.openshift.io/v1", "imagestreams", build.namespace, build.config, change
                )
                await self._trigger(build.namespace)
            status = {"status": {"phase": phase}}
            await self._patch("build.openshift.io/v1", "builds", build.namespace, build.name, status)

    async def _log(self, request: _Request, namespace: str, name: str) -> None:
        """What a build says, as long as it runs."""
        await _begin(request, 200, "text/plain")
        for line in (
            "Cloning or receiving the source ...",
            "STEP 1/3: FROM the builder",
            "STEP 2/3: assemble",
        ):
            request.writer.write(f"{line}\n".encode())
            await request.writer.drain()
            await asyncio.sleep(0.1)
        while await self._phase(namespace, name) in ("New", "Pending", "Running"):
            await asyncio.sleep(0.1)
        said = "Push successful\n" if self.made.fails is None else self.made.fails
        request.writer.write(said.encode())
        await request.writer.drain()

    async def _phase(self, namespace: str, name: str) -> str:
        target = f"/apis/build.openshift.io/v1/namespaces/{namespace}/builds/{name}"
        code, _, content = await self._ask("GET", target)
        return str(json.loads(content)["status"]["phase"]) if code == 200 else "Cancelled"

    # -- images ----------------------------------------------------------------------------------------------

    async def _tags(self, namespace: str, name: str) -> dict[str, str]:
        """What an image stream's tags are, by their names."""
        if namespace == "openshift":
            there = {tag.partition(":")[::2]: image for tag, image in self.made.shared.items()}
            return {tag: image for (stream, tag), image in there.items() if stream == name}
        target = f"/apis/image.openshift.io/v1/namespaces/{namespace}/imagestreams/{name}"
        code, _, content = await self._ask("GET", target)
        status = json.loads(content).get("status") or {} if code == 200 else {}
        return {one["tag"]: one["items"][0]["dockerImageReference"] for one in status.get("tags", ())}

    async def _tag(self, namespace: str, name: str | None) -> tuple[int, bytes]:
        stream, _, tag = (name or "").replace("%3A", ":").partition(":")
        image = (await self._tags(namespace, stream)).get(tag) if name else None
        if name is None:
            empty = {"apiVersion": "image.openshift.io/v1", "kind": "ImageStreamTagList", "items": []}
            return 200, json.dumps(empty).encode()
        if image is None:
            told = f'imagestreamtags.image.openshift.io "{name}" not found'
            return _status(404, "NotFound", told)
        found = {
            "apiVersion": "image.openshift.io/v1",
            "kind": "ImageStreamTag",
            "metadata": {"name": f"{stream}:{tag}", "namespace": namespace},
            "tag": None,
            "generation": 1,
            "lookupPolicy": {"local": False},
            "image": {"metadata": {"name": "sha256:0"}, "dockerImageReference": image},
        }
        return 200, json.dumps(found).encode()

    async def _trigger(self, namespace: str) -> None:
        """Give deployments the images that their annotations ask for, where those are there."""
        await asyncio.sleep(0.3)  # the controller is not the API server: others see the deployment first
        apps = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        _, _, content = await self._ask("GET", apps)
        for one in json.loads(content).get("items", ()):
            wanted = one["metadata"].get("annotations", {}).get(TRIGGERS)
            containers = []
            for trigger in json.loads(wanted or "[]"):
                stream, _, tag = trigger["from"]["name"].partition(":")
                place = trigger["from"].get("namespace") or namespace
                image = (await self._tags(place, stream)).get(tag)
                name = re.search(r'@\.name=="([^"]+)"', trigger["fieldPath"])
                assert name, f"no field path of OpenShift's: {trigger['fieldPath']}"
                has = {c["name"]: c["image"] for c in one["spec"]["template"]["spec"]["containers"]}
                if image and has[name[1]] != image:
                    # The node has no registry: what was loaded is all there is.
                    containers.append({"name": name[1], "image": image, "imagePullPolicy": "IfNotPresent"})
            if containers:
                change = {"spec": {"template": {"spec": {"containers": containers}}}}
                await self._patch(
                    "apps/v1",
                    "deployments",
                    namespace,
                    one["metadata"]["name"],
                    change,
                    "strategic-merge-patch",
                )

    # -- templates -------------------------------------------------------------------------------------------

    async def _process(self, request: _Request) -> tuple[int, bytes]:
        raw = json.loads(await request.body())
        template = templates.parse(json.dumps(raw), "the request")
        try:
            # The client has put its values into the parameters.
            done = templates.process(
                template, {one.name: one.value for one in template.parameters if one.value}
            )
        except UsageError as error:
            return _status(422, "Invalid", error.message)
        parameters = [one | {"value": done.values[one["name"]]} for one in raw.get("parameters", ())]
        answer = raw | {"objects": done.objects, "message": done.message, "parameters": parameters}
        return 201, json.dumps(answer).encode()


def _without_nulls(thing: Any) -> Any:
    """What an API server takes for the same: Go's clients write null where there is nothing."""
    if isinstance(thing, list):
        return [_without_nulls(one) for one in thing]
    if isinstance(thing, dict):
        return {key: _without_nulls(value) for key, value in thing.items() if value is not None}
    return thing


def _status(code: int, reason: str, message: str) -> tuple[int, bytes]:
    told = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return code, json.dumps(told | {"message": message, "reason": reason, "code": code}).encode()


async def _begin(request: _Request, code: int, kind: str, *more: str) -> None:
    lines = [f"HTTP/1.1 {code} -", f"Content-Type: {kind}", "Connection: close", *more, "", ""]
    request.writer.write("\r\n".join(lines).encode())
    await request.writer.drain()


async def _say(request: _Request, code: int, content: bytes, kind: str = "application/json") -> None:
    await _begin(request, code, kind, f"Content-Length: {len(content)}")
    request.writer.write(content)
    await request.writer.drain()
