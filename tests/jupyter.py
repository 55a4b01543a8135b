"""A Jupyter that is not ours: what starts kernels in the environment that it is run in, and says how they were.

``python tests/jupyter.py FILE`` reads steps as JSON, one list each, and prints one JSON line for each:

    ["specs", {name: kernel.json}]     have these kernels, and the pools that they ask for; waits until pools are ready
    ["start", name, {environ}]         a kernel, its pid
    ["run", code]                      in the last one: what it printed, or the error's name
    ["signal", number], ["interrupt"], ["restart"], ["poll"], ["stop"]
    ["pools"]                          the pids of the pools
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.multikernelmanager import AsyncMultiKernelManager

from ipython_cluster import kernel_pools, provisioner  # type: ignore[attr-defined,unused-ignore]

SECONDS = 60


class Jupyter:
    """Kernels, the last of which is the one that is meant."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        specs = KernelSpecManager(kernel_dirs=[str(self.folder)], ensure_native_kernel=False)
        self.manager: Any = AsyncMultiKernelManager(
            kernel_spec_manager=specs, connection_dir=str(self.folder)
        )
        self.kernel: Any = None
        self.client: Any = None
        self.identity = ""

    async def specs(self, specs: dict[str, Any]) -> list[str | None]:
        for name, spec in specs.items():
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name / "kernel.json").write_text(json.dumps(spec))
        provisioner.warm(self.manager.kernel_spec_manager)
        return [self._wait(pool) for pool in list(kernel_pools._pools.values())]

    @staticmethod
    def _wait(pool: Any) -> str | None:
        """Why it forks nothing, if it does not."""
        with pool.changed:
            assert pool.changed.wait_for(lambda: pool.ready or pool.refused, SECONDS)
            refused: str | None = pool.refused
            return refused

    async def start(self, name: str, environ: dict[str, str] | None = None) -> int:
        if self.client is not None:
            self.client.stop_channels()
        env = {"env": {**os.environ, **environ}} if environ else {}
        self.identity = await self.manager.start_kernel(kernel_name=name, cwd=str(self.folder), **env)
        self.kernel = self.manager.get_kernel(self.identity)
        self.client = self.kernel.client()
        self.client.start_channels()
        return int(self.kernel.provisioner.pid)

    async def run(self, code: str) -> str:
        await self.client.wait_for_ready(timeout=SECONDS)
        said: list[str] = []

        def hear(message: Any) -> None:
            content = message["content"]
            if message["msg_type"] == "error":
                said.append(content["ename"])
            elif message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] in ("display_data", "execute_result"):
                said.append(" ".join(sorted(content["data"])))

        await self.client.execute_interactive(code, timeout=SECONDS, output_hook=hear)
        return "".join(said).strip()

    async def begin(self, code: str) -> None:
        """Have it run, and do not wait for its end, but for its first word."""
        await self.client.wait_for_ready(timeout=SECONDS)
        self.client.execute(f"print('begun', flush=True)\n{code}")
        while True:
            message = await self.client.get_iopub_msg(timeout=SECONDS)
            if message["msg_type"] == "stream":
                return

    async def said(self) -> str:
        """The name of the error that what has begun ends with."""
        while True:
            message = await self.client.get_iopub_msg(timeout=SECONDS)
            if message["msg_type"] == "error":
                return str(message["content"]["ename"])

    async def interrupt(self) -> None:
        await self.kernel.interrupt_kernel()

    async def signal(self, number: int) -> None:
        await self.kernel.signal_kernel(number)

    async def restart(self) -> int:
        await self.kernel.restart_kernel(now=True)
        return int(self.kernel.provisioner.pid)

    async def ended(self) -> int | None:
        """The exit code of a kernel that ends by itself."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            code: int | None = await self.kernel.provisioner.poll()
            if code is not None:
                return code
            await asyncio.sleep(0.02)
        return None

    async def stop(self) -> None:
        await self.manager.shutdown_kernel(self.identity)

    async def pools(self) -> list[int]:
        return [pool.process.pid for pool in kernel_pools._pools.values()]

    async def settle(self) -> list[str | None]:
        """Wait until there is a pool that says whether it can."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            pools = list(kernel_pools._pools.values())
            if pools and all(pool.ready or pool.refused for pool in pools):
                return [pool.refused for pool in pools]
            await asyncio.sleep(0.02)
        raise AssertionError("no pool")


async def main() -> None:
    logging.basicConfig()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # where kernels speak
    jupyter = Jupyter()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(await getattr(jupyter, name)(*arguments)), file=out, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
