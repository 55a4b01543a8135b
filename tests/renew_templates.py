"""Ask the real `oc` again what it makes of the templates: `OC=/path/to/oc python -m tests.renew_templates`.

The kept results were made with oc at commit 6b8e30c5b39aa742147846341a203905e04834f3 (22 April 2026). Write here which
one you asked.
"""

from __future__ import annotations

import json
import sys

from tests.template_cases import EXPECTED, FOLDER, GENERATED, ask, cases, oc


def main() -> None:
    program = oc()
    if program is None:
        sys.exit("there is no oc: name one with $OC")
    found: dict[str, dict[str, object]] = {}
    for case in cases():
        result = ask(program, FOLDER / f"{case.template}.yaml", *case.words)
        if case in GENERATED:
            result["prints"] = []
        found.setdefault(case.template, {})[case.key] = result
    EXPECTED.mkdir(exist_ok=True)
    for old in EXPECTED.glob("*.json"):
        old.unlink()
    for name, results in found.items():
        text = json.dumps(results, indent=1, ensure_ascii=False)
        (EXPECTED / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
