"""The cluster that a map works on: the one that is named, or the one that ``ipyparallel.Client()`` finds."""

import sys

ENGINE_SECONDS = 30.0  # for engines to come, or to come back

_found = None  # for as long as this process: making a client takes a tenth of a second


class MapError(RuntimeError):
    """A map cannot begin, or cannot go on; the message says why and what to do."""


def here():
    """A client of the cluster that ``ipyparallel.Client()`` finds, the same one each time."""
    __tracebackhide__ = True
    global _found
    import ipyparallel

    if _found is None or _found._closed:  # a notebook may close it
        try:
            _found = ipyparallel.Client()
        except Exception as error:
            raise MapError(
                "no cluster was found: {}\n next: start one (ipython-builder up, or ipcluster start), or "
                "name a client: view=…".format(error)
            ) from error
    return _found


def balanced(view):
    """(client, load-balanced view) of whatever somebody names.

    Raises:
        MapError: there is no cluster, or no engine comes.
    """
    __tracebackhide__ = True
    client = here() if view is None else getattr(view, "client", view)
    targets = None if view in (None, client) else view.targets
    if not hasattr(client, "load_balanced_view"):
        raise TypeError("view= takes a Client or one of its views, and not {!r}".format(view))
    if not client.ids:
        try:
            wait(client)
        except TimeoutError:
            raise MapError(
                "the cluster has no engines\n next: ipython-builder scale LABEL 4, or look at "
                "`ipython-builder status`"
            ) from None
    if isinstance(targets, int):
        targets = [targets]
    if targets == "all":
        targets = None
    found = client.load_balanced_view(targets=targets)
    found.block = False
    found.retries = 0  # lost items are sent again by the map, which knows of them
    return client, found


def wait(client):
    """Wait for an engine, and say so.

    Raises:
        TimeoutError: none came.
    """
    try:
        client.wait_for_engines(1, timeout=1, interactive=False)
    except TimeoutError:
        print("waiting for engines, {:.0f} s at most …".format(ENGINE_SECONDS), file=sys.stderr, flush=True)
        client.wait_for_engines(1, timeout=ENGINE_SECONDS, interactive=False)
