"""The state of a cluster whose parts are in containers, from what each part says of itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ipython_builder.platforms.elsewhere import Elsewhere
from ipython_builder.platforms.parts import KINDS, Names

Found = Mapping[str, Mapping[str, Any]]


def state(made: Elsewhere, found: Found, said: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The `status` object.

    Args:
        found: kind -> what the engine knows of its container, where there is one.
        said: kind -> the `status` object of the supervisor in it, where it answers.
    """
    wrong: list[dict[str, Any]] = []
    roles: list[dict[str, Any]] = []
    for kind in KINDS:
        if kind == "engine" and not made.engines and kind not in found:
            continue
        mine = _roles(made, kind, found.get(kind), said.get(kind))
        roles += mine
        if kind in said:
            wrong += said[kind]["wrong"]
        elif mine[0]["state"] != "starting":
            what, since = f"{kind}: {mine[0]['reason']}", mine[0]["since"]
            wrong.append({"what": what, "since": since, "role": kind, "up": False})
    controller, engine = said.get("controller", {}), said.get("engine", {})
    counted = controller.get("engines", {})
    engines = {
        "requested": engine["engines"]["requested"] if engine else made.engines,
        "registered": counted.get("registered", 0),
        "busy": counted.get("busy", 0),
    }
    memory = sum(one.get("memory") or 0 for one in said.values())
    result = {
        "label": made.label,
        "platform": made.platform,
        "state": _state(roles, engines, found, said, made),
        "engines": engines,
        "tasks": controller.get("tasks", {}),
        "memory": memory or None,
        "roles": roles,
        "pool": engine.get("pool", {"left_out": {}, "refused": None}),
        "wrong": wrong,
        "url": made.url,
        "source": made.source,
        "commit": made.commit,
        "image": made.image,
        "containers": {kind: Names(made.label, made.user).of(kind) for kind in found},
        "volumes": {"workspace": Names(made.label, made.user).workspace},
    }
    if environment := said.get("viewer", {}).get("environment"):
        result["environment"] = environment
        result["notebooks"] = said["viewer"]["notebooks"]
    return result


def _roles(
    made: Elsewhere, kind: str, found: Mapping[str, Any] | None, said: dict[str, Any] | None
) -> list[dict[str, Any]]:
    name = Names(made.label, made.user).of(kind)
    restarts = int((found or {}).get("RestartCount") or 0)
    if said:
        rows = [role for role in said["roles"] if role["role"] != "supervisor"]
        # A pid in a container is nobody's on this machine.
        return [row | {"pid": None, "name": name, "restarts": row["restarts"] + restarts} for row in rows]
    if found is None:
        state, reason = "stopped", "there is no container"
    elif found["State"]["Status"] in ("running", "created", "initialized", "restarting"):
        state, reason = "starting", "its supervisor does not answer yet"
    else:
        state, reason = "stopped", f"the container is {found['State']['Status']}"
    return [
        {
            "role": kind, "id": 0, "pid": None, "name": name, "state": state, "restarts": restarts,
            "since": _since(found), "reason": reason, "memory": None,
        }
    ]  # fmt: skip


def _since(found: Mapping[str, Any] | None) -> float | None:
    """When its container was started, or ended; seconds since the epoch."""
    told = (found or {}).get("State", {})
    moment = str(told.get("StartedAt" if told.get("Running") else "FinishedAt") or "")
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", moment)).timestamp()
    except (ValueError, OverflowError):
        return None


def _state(
    roles: list[dict[str, Any]],
    engines: dict[str, Any],
    found: Found,
    said: Mapping[str, dict[str, Any]],
    made: Elsewhere,
) -> str:
    if not made.image:
        return "incomplete"
    if not any(one["State"].get("Running") for one in found.values()):
        return "stopped"
    if any(one["state"] == "failing" for one in said.values()):
        return "failing"
    settled = all(role["state"] in ("ready", "off") for role in roles)
    if settled and engines["requested"] == engines["registered"]:
        return "ready"
    return "failing" if any(role["state"] == "stopped" for role in roles) else "starting"
