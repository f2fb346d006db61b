"""A Ray cluster of one machine, as an operator starts it: `ray start --head`, token authentication on, its own ports.

It disturbs no other Ray on the machine, and is used from outside, by Ray's commands and its dashboard's HTTP interface.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import cluster
from cluster import ray_environment

ROOT = Path(cluster.__file__).parent.parent
UP_WITHIN_S = 60.0
DOWN_WITHIN_S = 5.0
"""With applications running Ray takes far longer, for nothing: then it is killed."""
POLL_S = 0.2


class ClusterError(RuntimeError):
    """A cluster that does not come up, or a command on it that fails."""


class LocalCluster:
    """A context manager: up within it. `num_cpus` is room, by Ray's count, whatever the machine has."""

    def __init__(self, *, num_cpus: int) -> None:
        self._num_cpus = num_cpus
        self.port, self._dashboard_port, client, agent = (free_port() for _ in range(4))
        self._extra_ports = {"--ray-client-server-port": client, "--dashboard-agent-listen-port": agent}
        # A short path: Ray's sockets lie below it.
        self._folder = Path(tempfile.mkdtemp(prefix="pd-"))
        self.environment = _environment()

    @property
    def dashboard(self) -> str:
        """Where `ray job submit` and `serve deploy` go."""
        return f"http://127.0.0.1:{self._dashboard_port}"

    def __enter__(self) -> LocalCluster:
        ports = [f"{option}={port}" for option, port in self._extra_ports.items()]
        command = [_tool("ray"), "start", "--head", "--block", f"--port={self.port}", *ports]
        command += [f"--dashboard-port={self._dashboard_port}", f"--num-cpus={self._num_cpus}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={self._folder}", "--disable-usage-stats"]
        with (self._folder / "start.log").open("wb") as log:
            # In a group of its own: what interrupts us is not to end Ray before we do.
            self._ray = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        with ExitStack() as unless_up:
            unless_up.callback(self.close)
            self._wait()
            unless_up.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """What `ray start --block` began ends with it."""
        self._ray.terminate()
        try:
            self._ray.wait(DOWN_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._ray.pid, signal.SIGKILL)
            self._ray.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, *command: str, cwd: Path = ROOT) -> None:
        """One of Ray's or our own commands, its output on our standard error. Raises ClusterError if it fails."""
        done = subprocess.run(
            [_tool(command[0]), *command[1:]], env=self.environment, cwd=cwd, stdout=sys.stderr.fileno(), check=False
        )
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: exit status {done.returncode}")

    def get(self, path: str) -> Any:
        """What the dashboard answers, as JSON. Raises OSError."""
        headers = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(self.dashboard + path, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as found:
            return json.load(found)

    def _wait(self) -> None:
        """Until jobs and applications can be submitted."""
        deadline = time.monotonic() + UP_WITHIN_S
        while time.monotonic() < deadline:
            try:
                self.get("/api/serve/applications/")
                return
            except OSError:
                if self._ray.poll() is not None:
                    break
                time.sleep(POLL_S)
        raise ClusterError(f"Ray did not start:\n{(self._folder / 'start.log').read_text(encoding='utf8')[-2000:]}")


def free_port() -> int:
    """Of this machine, at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    """This process's, with the secret of a new cluster, and our source where its workers look for modules."""
    own = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH")}
    return (
        ray_environment.SERVE
        | own
        | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [own.get("PYTHONPATH")])]),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", "")]),
        }
    )


def _tool(name: str) -> str:
    """A command that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))
