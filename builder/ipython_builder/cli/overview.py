"""A cluster's state as lines for a person: everything that is not well, and what is well in few words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ipython_builder.events import counted

# The order in which the states of engines are counted.
_STATES = ("ready", "starting", "leaving", "waiting", "stopped", "failing")
_TASKS = ("queued", "running", "done", "failed")
_GONE = ("stopped", "unsupervised", "incomplete")
Row = tuple[str, str]


def lines(state: dict[str, Any], now: float, height: int) -> list[str]:
    """The `status` object as text.

    Args:
        now: seconds since the epoch; ages are from there.
        height: how many lines there may be. Engines of the same fate are one line, and what is too much is
            counted.
    """
    engines = state["engines"]
    registered = f"{engines['registered']:,} of {counted(engines['requested'], 'engine')} registered"
    if not {"controller", "engine"} & {role["role"] for role in state["roles"]} and not engines["requested"]:
        registered = "engines, if there are any, are elsewhere"
    about = [(name, str(state[name])) for name in ("url", "source", "notebooks") if state.get(name)]
    if len(users := state.get("users") or ()) > 1:
        about.append(("users", ", ".join(users)))
    for role in state["roles"]:
        if role["role"] != "engine":
            about.append((role["role"], _role(role, now)))
            about += _left_out(state) if role["role"] == "pool" else []
    mine = [role for role in state["roles"] if role["role"] == "engine"]
    about += _engines(mine, engines.get("busy"), now)
    end = _tasks(state) + _memory(state)
    if state["state"] in _GONE or any(role["state"] == "stopped" for role in state["roles"]):
        space = state.get("namespace")
        where = f" --on {state['platform']} --namespace {space}" if space else ""
        source = state.get("source") or "SOURCE"
        end.append(("next", f"ipython-builder up --label {state['label']}{where} {source}"))
    wrong, named = _wrong(state["wrong"], now)
    unwell = _unwell([one for one in mine if one["id"] not in named], now) if len(mine) > 1 else []
    room = max(height - 1 - len(about) - len(end), 2)
    wrong = _fit(wrong, max(room // 2, room - len(unwell)), "wrong")
    unwell = _fit(unwell, room - len(wrong), "")
    # What is wrong comes first: it is what somebody looks for, and a low window shows no more.
    rows = (*wrong, *about, *unwell, *end)
    return [
        f"{state['label']}: {state['state']}, {registered}",
        *(f"  {name:<10} {text}" for name, text in rows),
    ][: max(height, 1)]


def _role(role: dict[str, Any], now: float) -> str:
    parts = [role["state"] + (f" for {_age(now - role['since'])}" if role["since"] else "")]
    if role["pid"]:
        parts.append(f"pid {role['pid']}")
    if role.get("memory"):
        parts.append(_size(role["memory"]))
    return ", ".join(parts) + _fate(role["state"], [role["restarts"]], role["reason"])


def _fate(state: str, restarts: Sequence[int], reason: str | None) -> str:
    """What befell it, where there is something to tell."""
    told = reason and (any(restarts) or state not in ("ready", "starting"))
    return _again(restarts) + (f" ({reason})" if told else "")


def _again(restarts: Sequence[int]) -> str:
    least, most = min(restarts), max(restarts)
    return f", restarted {least}–{most}×" if least != most else f", restarted {most}×" if most else ""


def _engines(engines: Sequence[dict[str, Any]], busy: int | None, now: float) -> list[Row]:
    """All engines in one line."""
    if not engines:
        return []
    if len(engines) == 1:
        does = "" if busy is None else ", busy" if busy else ", idle"
        return [(f"engine {engines[0]['id']}", _role(engines[0], now) + does)]
    count = Counter(engine["state"] for engine in engines)
    names = [*_STATES, *sorted(set(count) - set(_STATES))]
    text = ", ".join(f"{count[name]:,} {name}" for name in names if count[name])
    if busy is not None:
        text += f"; {busy:,} busy"
    if memory := sum(engine.get("memory") or 0 for engine in engines):
        text += f"; {_size(memory)}"
    return [("engines", f"{_ids(engine['id'] for engine in engines)}: {text}")]


def _unwell(engines: Iterable[dict[str, Any]], now: float) -> list[Row]:
    """Engines that are not ready or were restarted, those of one fate in one line; the worst first."""
    alike: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for engine in engines:
        if engine["state"] != "ready" or engine["restarts"]:
            reason = engine["reason"] if engine["restarts"] or engine["state"] != "starting" else None
            alike.setdefault((engine["state"], reason), []).append(engine)
    order = sorted(alike.items(), key=lambda one: (_rank(one[0][0]), one[1][0]["id"]))
    rows = []
    for (state, reason), some in order:
        longest = _age(now - min(engine["since"] or now for engine in some))
        fate = _fate(state, [engine["restarts"] for engine in some], reason)
        if len(some) == 1:
            pid = f", pid {some[0]['pid']}" if some[0]["pid"] else ""
            rows.append((f"engine {some[0]['id']}", f"{state} for {longest}{pid}{fate}"))
        else:
            rows.append(
                ("", f"{len(some):,} {state} for up to {longest}{fate}: {_ids(e['id'] for e in some)}")
            )
    return rows


def _rank(state: str) -> int:
    """Failing first, ready last."""
    return -_STATES.index(state) if state in _STATES else -len(_STATES)


def _wrong(wrong: Iterable[Any], now: float) -> tuple[list[Row], set[int]]:
    """(what is wrong and since when, the engines it is about); what is wrong with many is said once."""
    alike: dict[str, list[tuple[int | None, int, float | None]]] = {}
    for one in wrong:
        said, since = (str(one.get("what")), one.get("since")) if isinstance(one, dict) else (str(one), None)
        match = re.fullmatch(r"engine (\d+): (.*?)(?:, restarted (\d+) times?)?", said, re.DOTALL)
        if match:
            alike.setdefault(match[2], []).append((int(match[1]), int(match[3] or 0), since))
        else:
            alike.setdefault(said, []).append((None, 0, since))
    rows, named = [], set()
    for what, some in alike.items():
        numbers = [number for number, _, _ in some if number is not None]
        named.update(numbers)
        who = f"engine{'s' if len(numbers) > 1 else ''} {_ids(numbers)}: " if numbers else ""
        times = [since for _, _, since in some if since is not None]
        lasting = f", for {_age(now - min(times))}" if times else ""
        rows.append(("wrong", who + what + _again([restarts for _, restarts, _ in some]) + lasting))
    return rows, named


def _fit(rows: list[Row], room: int, name: str) -> list[Row]:
    if len(rows) <= room:
        return rows
    room = max(room, 1)
    return [*rows[: room - 1], (name, f"… and {len(rows) - room + 1} more; --json has all")]


def _left_out(state: dict[str, Any]) -> list[Row]:
    """Modules that engines do not have from their start, although notebooks import them."""
    left_out = (state.get("pool") or {}).get("left_out") or {}
    return [("", f"without {module}: {why}") for module, why in list(left_out.items())[:3]]


def _tasks(state: dict[str, Any]) -> list[Row]:
    tasks = state.get("tasks") or {}
    return [("tasks", ", ".join(f"{tasks.get(name, 0):,} {name}" for name in _TASKS))] if tasks else []


def _memory(state: dict[str, Any]) -> list[Row]:
    return [("memory", f"{_size(state['memory'])} in all")] if state.get("memory") else []


def _ids(numbers: Iterable[int], limit: int = 8) -> str:
    """``0-3, 7``; the first few of many ranges."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    text = ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in ranges[:limit])
    return text + (", …" if len(ranges) > limit else "")


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _size(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.{1 if count < 10 * size else 0}f} {unit}"
    return f"{count / 1e3:.0f} kB"
