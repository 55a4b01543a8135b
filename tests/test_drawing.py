"""The picture of who did what."""

from __future__ import annotations

import datetime
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from ipython_cluster import Results, picture
from ipython_cluster.drawing import COLOURS, FAILED
from ipython_cluster.mapping import Task

SVG = "{http://www.w3.org/2000/svg}"


class Asked:
    """An AsyncResult, as far as its metadata go."""

    def __init__(self, *found: dict[str, Any]) -> None:
        self.metadata = found[0] if len(found) == 1 else list(found)


def told(engine: int, started: float, seconds: float, status: str = "ok") -> dict[str, Any]:
    begun = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=started)
    done = begun + datetime.timedelta(seconds=seconds)
    return {"engine_id": engine, "started": begun, "completed": done, "status": status}


def mapped(*tasks: tuple[int, int, int, float, float]) -> Results:
    made = []
    for engine, first, count, started, completed in tasks:
        one = Task(first, count)
        one.engine, one.submitted, one.started, one.completed = engine, started, started, completed
        made.append(one)
    return Results([], made)


def boxes(svg: str) -> list[tuple[float, float, str, str]]:
    """(x, width, colour, title) of the bars."""
    rects = ElementTree.fromstring(svg).findall(f"{SVG}rect")
    return [
        (
            float(one.get("x", 0)),
            float(one.get("width", 0)),
            one.get("fill", ""),
            one.findtext(f"{SVG}title", ""),
        )
        for one in rects
        if one.find(f"{SVG}title") is not None
    ]


def test_bars_of_a_map() -> None:
    made = picture(mapped((0, 0, 10, 100.0, 101.0), (3, 10, 1, 100.0, 100.5), (0, 11, 5, 101.0, 102.0)))
    svg = made._repr_svg_()
    assert made.title == "3 tasks on 2 engines, 2 s, busy 62% of the time"
    first, second, third = boxes(svg)
    assert [one[3] for one in (first, second, third)] == [
        "items 0 to 9, 1 s", "items 11 to 15, 1 s", "item 10, 0.5 s",
    ]  # fmt: skip
    assert first[0] < second[0]
    assert first[0] == third[0]
    assert first[1] == pytest.approx(2 * third[1], abs=2)
    texts = [one.text for one in ElementTree.fromstring(svg).findall(f"{SVG}text")]
    assert {"engine 0", "engine 3", "0 s", "1 s", "2 s"} <= set(texts)


def test_bars_of_ipyparallels_results() -> None:
    made = picture(
        Asked(told(0, 0, 1), told(1, 0, 2, "error"), {"engine_id": 1, "started": None}), Asked(told(2, 1, 1))
    )
    assert made.title == "3 tasks on 3 engines, 2 s, busy 67% of the time"
    assert [one[2] for one in boxes(made._repr_svg_())] == [COLOURS[0], FAILED, COLOURS[2]]


def test_it_is_saved_and_has_no_width_that_cannot_be(tmp_path: Path) -> None:
    made = picture(mapped((0, 0, 1, 5.0, 5.0)))
    made.save(tmp_path / "picture.svg")
    ((_, width, _, _),) = boxes((tmp_path / "picture.svg").read_text())
    assert width >= 1


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(TypeError, match="'list' is no result of a cluster"):
        picture([1, 2])
    with pytest.raises(ValueError, match="no task is done yet"):
        picture(Asked({"engine_id": None, "started": None, "completed": None}))


def test_into_axes_of_matplotlib() -> None:
    axes = Figure().subplots()
    assert picture(mapped((0, 0, 10, 0.0, 1.0), (1, 10, 1, 0.0, 0.5))).draw(axes) is axes
    assert [one.get_text() for one in axes.get_yticklabels()] == ["engine 0", "engine 1"]
    assert len(axes.patches) == 2
