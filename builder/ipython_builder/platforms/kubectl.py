"""kubectl and oc as clusters use them: one interface, two ways to run it, and what their errors mean.

oc goes through the openshift-client library, except for what streams or takes the terminal.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ipython_builder import commands
from ipython_builder.commands import Result, redact
from ipython_builder.errors import BuilderError, Transient, Unavailable, UsageError

CALL_SECONDS = 120.0
ANSWER_SECONDS = 15  # in which a cluster says what it has


@dataclass(frozen=True)
class Place:
    """Where in Kubernetes.

    Attributes:
        namespace: None for the one of the context.
        context: of the kubeconfig; None for the current one.
    """

    namespace: str | None = None
    context: str | None = None

    def words(self) -> list[str]:
        """Options that say it."""
        found = [f"--context={self.context}"] if self.context else []
        return [*found, f"--namespace={self.namespace}"] if self.namespace else found


class Client(Protocol):
    """One of the two programs, in one place."""

    name: str
    place: Place

    def run(self, *words: str, what: str, stdin: str | None = None, check: bool = True) -> Result:
        """Run a verb to its end; `what` cannot be done if it fails, for the error."""


class Kubectl:
    """The program itself."""

    def __init__(self, program: str, name: str, place: Place) -> None:
        self.program = program
        self.name = name
        self.place = place

    def argv(self, *words: str) -> list[str]:
        """A command line in this place."""
        return [self.program, *self.place.words(), *words]

    def run(self, *words: str, what: str, stdin: str | None = None, check: bool = True) -> Result:
        """See `Client`.

        Raises:
            BuilderError: `check`, and it failed; one of its kinds where what it says is known.
        """
        answer = commands.run(self.argv(*words), stdin=stdin, timeout=CALL_SECONDS)
        if check and answer.returncode:
            raise failure(what, answer.stderr, self)
        return answer

    def get(self, kinds: Sequence[str], *words: str) -> list[dict[str, Any]]:
        """The objects of these kinds, in the order that they are said."""
        what = f"{', '.join(kinds)} cannot be looked at"
        words = (*words, "--ignore-not-found", "--output=json", f"--request-timeout={ANSWER_SECONDS}s")
        answer = self.run("get", ",".join(kinds), *words, what=what)
        if not answer.stdout.strip():
            return []
        found = json.loads(answer.stdout)
        items: list[dict[str, Any]] = found["items"] if found["kind"].endswith("List") else [found]
        return items

    def apply(self, objects: Sequence[dict[str, Any]], what: str) -> None:
        """Have these objects as they are here. By the server: no note on a Secret repeats its content."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        words = ("apply", "--server-side", "--force-conflicts", "--field-manager=ipython-builder")
        self.run(*words, "--filename=-", what=what, stdin=text)

    def follow(self, *words: str, on_line: Callable[[str], None]) -> Result:
        """Run a verb whose output is heard line by line."""
        return commands.run(self.argv(*words), merged=True, on_line=on_line)


class Oc(Kubectl):
    """The same by way of the openshift-client library."""

    def run(self, *words: str, what: str, stdin: str | None = None, check: bool = True) -> Result:
        """See `Client`."""
        import openshift_client

        verb, *rest = words
        place = [f"--context={self.place.context}"] if self.place.context else []
        project = openshift_client.project(self.place.namespace)
        with openshift_client.client_path(self.program), project, openshift_client.timeout(CALL_SECONDS):
            done = openshift_client.invoke(
                verb,
                [*place, *rest],
                stdin_str=stdin,
                auto_raise=False,
                no_namespace=not self.place.namespace,
            )
        if done.actions()[-1].timeout:
            raise Transient(f"{what}: oc did not answer within {CALL_SECONDS:.0f} s", "try again")
        answer = Result((self.program, *words), done.status(), redact(done.out()), redact(done.err()))
        if check and answer.returncode:
            raise failure(what, answer.stderr, self)
        return answer


_PROGRAMS = {"kubernetes": "kubectl", "openshift": "oc"}


def client(name: str, place: Place) -> Kubectl:
    """The program of a platform, in a place that is named in full.

    Raises:
        Unavailable: it is not on PATH, or there is no cluster that it knows.
    """
    program = _PROGRAMS[name]
    if shutil.which(program) is None:
        raise Unavailable(f"{program} is not on PATH", f"install {program}, or mend PATH")
    made = (Oc if program == "oc" else Kubectl)(program, name, place)
    if place.context is None:
        # Another one may be the current one tomorrow. In a pod there is none.
        said = made.run("config", "current-context", what="", check=False)
        place = Place(place.namespace, said.stdout.strip() or None)
        made.place = place
    if place.namespace is None:
        words = ("config", "view", "--minify", "--output=jsonpath={..namespace}")
        said = made.run(*words, what=f"{program} has no current context")
        made.place = Place(said.stdout.strip() or "default", place.context)
    return made


@dataclass(frozen=True)
class Known:
    """What somebody can say, what it means, and what to do then."""

    pattern: str
    kind: type[BuilderError]
    meaning: str
    hint: str


_NOISE = re.compile(r"[EWI]\d{4} \d\d:")  # what the library below says to itself
_NO_KIND = r"doesn't have a resource type|no matches for kind"
_KNOWN = (
    Known(
        r"provide credentials|must be logged in|Unauthorized|token .*expired",
        *(Unavailable, "you are not logged in", "{login}"),
    ),
    Known(
        r"current-context|context .* does not exist|no context exists|cannot locate context"
        "|Missing or incomplete configuration",
        *(UsageError, "there is no such context", "look at `{program} config get-contexts`"),
    ),
    Known(
        r"refused - did you|connection refused|no such host|i/o timeout|deadline exceeded|Client.Timeout"
        "|Unable to connect|no route to host|network is unreachable",
        *(Unavailable, "the cluster does not answer", "look at `{program} cluster-info`"),
    ),
    Known(
        r"exceeded quota|must specify (limits|requests)",
        *(BuilderError, "the namespace's quota does not allow it", "ask for less, or for a larger quota"),
    ),
    Known(
        r"admission webhook .* denied|violates PodSecurity|ValidatingAdmissionPolicy"
        "|unable to validate against any security context constraint",
        *(BuilderError, "the cluster's rules refuse it", "show this to who runs the cluster"),
    ),
    Known(
        r'namespaces? "[^"]*" not found|project.* not found',
        *(UsageError, "there is no such namespace", "make it, or name another with --namespace"),
    ),
    Known(
        r"\(Forbidden\)|is forbidden|cannot \w+ resource",
        *(BuilderError, "you may not do that there"),
        "use a namespace of your own (--namespace), or ask for the role `edit` in it",
    ),
    Known(
        _NO_KIND,
        *(BuilderError, "this cluster does not know what is asked for"),
        "only OpenShift has builds, routes and templates; elsewhere use --on kubernetes",
    ),
)


def no_such_kind(answer: Result) -> bool:
    """Whether it failed because this cluster has no objects of that kind."""
    return bool(answer.returncode and re.search(_NO_KIND, answer.stderr))


def failure(what: str, text: str, client: Kubectl) -> BuilderError:
    """What a message of kubectl or oc means for the person who sees it."""
    lines = [line for line in text.strip().splitlines() if not _NOISE.match(line)]
    said = "\n".join(f"  {line}" for line in list(dict.fromkeys(lines))[-6:])
    login = "log in: `oc login`" if client.program == "oc" else "look at `kubectl config view`"
    for known in _KNOWN:
        if re.search(known.pattern, text, re.IGNORECASE):
            hint = known.hint.format(program=client.program, login=login)
            return known.kind(f"{what}: {known.meaning}:\n{said}", hint)
    return BuilderError(f"{what}:\n{said}", "mend what it names")
