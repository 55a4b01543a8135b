"""A plan as the text of a Containerfile. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ipython_builder.build.plan import USER, Command, Copy, Labels, Plan, Run, Step, Variables


def text(plan: Plan) -> str:
    """The Containerfile of `plan`; the same plan gives the same text."""
    return "\n".join([f"FROM {plan.builder}", *(_line(step) for step in plan.steps)]) + "\n"


def _line(step: Step) -> str:
    match step:
        case Run():
            return " \\\n    ".join([f"# {step.layer}\nRUN", *step.mounts, step.line])
        case Copy():
            return f"# {step.layer}\nCOPY --chown={USER}:0 {step.folder}/ {step.target}/"
        case Variables():
            return _pairs("ENV", step.values)
        case Labels():
            return _pairs("LABEL", step.values)
        case Command():
            return f"CMD {json.dumps(list(step.words))}"


def _pairs(word: str, values: Mapping[str, str]) -> str:
    pairs = [f"{_quoted(key)}={_quoted(value)}" for key, value in sorted(values.items())]
    return " \\\n    ".join([word, *pairs]) if pairs else f"# no {word}"


def _quoted(value: str) -> str:
    """A word as it is: nothing in it is expanded."""
    if re.fullmatch(r"[A-Za-z0-9_./:+-]+", value):
        return value
    escaped = re.sub(r'(["\\$])', r"\\\1", value)
    return f'"{escaped}"'
