import subprocess
from pathlib import Path

from ipython_builder import runtime

subprocess.run(
    ["uv", "venv", "--quiet", "--allow-existing", "--python", "/usr/bin/python3", "/opt/app-root"], check=True
)
Path("/build/runtime.txt").write_text(runtime.preferred_versions())
subprocess.run(
    [
        "uv",
        "pip",
        "install",
        "--python",
        "/opt/app-root/bin/python",
        "--compile-bytecode",
        "-c",
        "/build/runtime.txt",
        *runtime.REQUIREMENTS,
    ],
    check=True,
)
subprocess.run(
    [
        "uv",
        "pip",
        "install",
        "--python",
        "/opt/app-root/bin/python",
        "--compile-bytecode",
        "--no-deps",
        str(runtime.wheel(Path("/build/wheel"))),
    ],
    check=True,
)
