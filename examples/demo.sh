#!/bin/sh
# The example monte-carlo, from nothing to its result: environment, notebook, four engines, a run, a picture.
# The cluster stays up, for you to log in to. `make demo` calls this; IPYTHON_BUILDER names another command.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
tool=${IPYTHON_BUILDER:-$bin/ipython-builder}
result=$PWD/.cache/demo
mkdir -p "$result"

"$tool" up examples/monte-carlo -n 4 --label demo
"$tool" run demo monte-carlo.ipynb -o "$result/monte-carlo.ipynb" >/dev/null

"$bin/python" - "$result" <<'SHOW'
import base64, json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
notebook = json.loads((folder / "monte-carlo.ipynb").read_text())
outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
print("\nWhat the notebook printed:\n")
for output in outputs:
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    if "image/png" not in output.get("data", {}):
        print("  " + "".join(text).rstrip().replace("\n", "\n  "))
pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
(folder / "monte-carlo.png").write_bytes(base64.b64decode("".join(pictures[-1])))
SHOW
cat <<END

The picture:        $result/monte-carlo.png
The notebook:       $result/monte-carlo.ipynb
It is still up at   $("$tool" status demo --json | "$bin/python" -c 'import json, sys; print(json.load(sys.stdin)["url"])')
with the password   $("$tool" password demo)
Stop it with        $tool down demo
END
