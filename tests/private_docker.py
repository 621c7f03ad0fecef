"""A Docker daemon that tests may hurt: started for them, with the base image, never the user's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.docker_engine import BASE, eventually

NEEDS = [
    pytest.mark.docker,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can start a Docker engine"),
    pytest.mark.skipif(not shutil.which("dockerd"), reason="there is no dockerd to start"),
]


class PrivateDocker:
    """A dockerd of our own, in a network of its own: started beside another one it removes docker0."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"unix://{directory}/d.sock"
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        command = [
            "unshare",
            "--net",
            "dockerd",
            "--host",
            self.url,
            "--bridge=none",
            "--iptables=false",
        ]
        for option, name in (("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid")):
            command += [f"--{option}", str(self.directory / name)]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def kill(self, number: int) -> None:
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait()
            # Its containerd dies with it. Where nobody reaps that, the next one takes it for alive.
            (self.directory / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def unmount(self) -> None:
        """What it leaves mounted of its data."""
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", mount], check=True)

    def docker(self, *arguments: str, pipe: subprocess.Popen[bytes] | None = None) -> None:
        subprocess.run(
            ["docker", "--host", self.url, *arguments],
            stdin=pipe.stdout if pipe else None,
            capture_output=True,
            check=True,
            timeout=60,
        )

    def answers(self) -> bool:
        try:
            self.docker("version")
        except subprocess.CalledProcessError:
            return False
        return True

    async def wait_answering(self) -> None:
        await eventually(lambda: anyio.to_thread.run_sync(self.answers), within=30)


@contextmanager
def private_docker(directory: Path) -> Iterator[PrivateDocker]:
    """One in `directory`, which is removed with it; it has the base image."""
    directory.mkdir(exist_ok=True)
    private = PrivateDocker(directory)
    private.start()
    try:
        anyio.run(private.wait_answering)
        with subprocess.Popen(["docker", "save", BASE.name], stdout=subprocess.PIPE) as image:
            private.docker("load", pipe=image)
        yield private
    finally:
        if private.process.poll() is None:
            private.kill(signal.SIGTERM)
        private.unmount()
