"""The user's script of the tests in this folder: what runs in the containers."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from typing import Any

import minimodal

app = minimodal.App("objects")

CANARY = "canary-7f3a-ünïcode"
MULTILINE = "-----BEGIN KEY-----\nline-one-of-it\nline-two-of-it\n-----END KEY-----"
given = minimodal.Secret.from_dict({"TOKEN": CANARY, "PEM": MULTILINE, "LEFT_OUT": None})
tricks = minimodal.Secret.from_dict(
    {"PATH": "/nowhere", "PYTHONPATH": "/nowhere", "LD_PRELOAD": "/nowhere.so", "LINES": "a\nb"}
)
stored = minimodal.Secret.from_name("stored", required_keys=["STORED"])


@app.function(secrets=[given, stored], env={"OVER": "env"})
def environment(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


@app.function(max_containers=2)
def token_at_once(mine: str, other: str) -> str | None:
    """Two of these, in two containers at once, each with a secret of its own."""
    started.put(1, partition=other)
    started.get(timeout=30, partition=mine)
    return os.environ.get("TOKEN")


@app.function()
def secret_inside(name: str) -> tuple[list[str], str]:
    """What a container may know of stored secrets: their names, and none of their values."""
    names = [each.name or "" for each in minimodal.Secret.objects.list()]
    return names, repr(minimodal.Secret.from_name(name).info())


@app.function(secrets=[given])
def in_a_subprocess(name: str) -> str:
    code = f"import os; print(os.environ[{name!r}])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


@app.function(secrets=[given])
def prints() -> None:
    token = os.environ["TOKEN"]
    print("whole", token)
    print("split ", end="", flush=True)
    print(token[:9], end="", flush=True)
    print(token[9:], flush=True)
    print(os.environ["PEM"])
    print("repr", repr(os.environ["PEM"]), flush=True)
    print("x" * (32 * 1024 - 5) + token + "y" * 100, flush=True)
    print("last")


@app.function(secrets=[given])
def fails() -> None:
    raise ValueError("the token is " + os.environ["TOKEN"])


@app.function(secrets=[given])
def holds(name: str) -> int:
    """Runs, with the secret, until somebody puts an item into the queue of that name."""
    del name
    started.put(1)
    return int(release.get(timeout=30))


@app.function(secrets=[tricks])
def tricked() -> list[str | None]:
    return [os.environ.get(name) for name in ("PATH", "PYTHONPATH", "LD_PRELOAD", "LINES")]


started = minimodal.Queue.from_name("started", create_if_missing=True)
release = minimodal.Queue.from_name("release", create_if_missing=True)


def at_build() -> None:
    print("built with", os.environ["TOKEN"])


with_secret = minimodal.Image.debian_slim().run_function(at_build, secrets=[given])


# --- dicts and queues -----------------------------------------------------------------------------


@app.function()
def dict_put(shared: minimodal.Dict, key: Any, value: Any, skip: bool = False) -> bool:
    return shared.put(key, value, skip_if_exists=skip)


@app.function()
async def dict_get(shared: minimodal.Dict, key: Any) -> Any:
    return await shared.get.aio(key, "nothing")


@app.function()
def dict_items(shared: minimodal.Dict) -> list[tuple[Any, Any]]:
    return list(shared.items())


@app.function()
def queue_get(shared: minimodal.Queue, timeout: float, partition: str | None = None) -> Any:
    try:
        return shared.get(timeout=timeout, partition=partition)
    except queue.Empty:
        return "empty"


@app.function()
def queue_put(shared: minimodal.Queue, values: list[Any], block: bool = True) -> bool:
    try:
        shared.put_many(values, block)
    except queue.Full:
        return False
    return True


@app.function()
def ephemeral_inside() -> tuple[int, str]:
    with minimodal.Dict.ephemeral() as shared:
        shared["a"] = 1
        return shared["a"], shared.object_id


# --- volumes --------------------------------------------------------------------------------------

data = minimodal.Volume.from_name("data", create_if_missing=True)


@app.function(volumes={"/data": data}, max_containers=1)
def volume_write(files: dict[str, str], commit: bool = True) -> list[str]:
    for name, text in files.items():
        path = f"/data/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    if commit:
        data.commit()
    return sorted(os.listdir("/data"))


@app.function(volumes={"/data": data}, max_containers=1)
def volume_read(name: str, reload: bool = False) -> str | None:
    if reload:
        data.reload()
    try:
        with open(f"/data/{name}") as file:
            return file.read()
    except FileNotFoundError:
        return None


@app.function(volumes={"/data": data})
def volume_reload_while(what: str) -> str:
    with open("/data/open", "w") as file:
        if what == "cwd":
            file.close()
            os.makedirs("/data/below", exist_ok=True)
            os.chdir("/data/below")
        try:
            data.reload()
        except RuntimeError as error:
            return str(error)
        finally:
            os.chdir("/")
    return "reloaded"


@app.function(volumes={"/data": data}, single_use_containers=True)
def volume_fails_after_writing(text: str) -> None:
    with open("/data/written-then-failed", "w") as file:
        file.write(text)
    raise ValueError("after writing")


@app.cls(volumes={"/data": data}, scaledown_window=2, max_containers=1)
class WritesOnExit:
    @minimodal.method()
    def work(self) -> None:
        with open("/data/at-work", "w") as file:
            file.write("worked")

    @minimodal.exit()
    def leave(self) -> None:
        with open("/data/at-exit", "w") as file:
            file.write("left")


@app.function(single_use_containers=True, max_containers=1)
def volume_copy_of(name: str, change: str) -> tuple[int, str]:
    """Which copy of the volume this container has, by the number of a file; changes it if asked."""
    with open(f"/data/{name}") as file:
        number, text = os.fstat(file.fileno()).st_ino, file.read()
    match change:
        case "mode":
            os.chmod(f"/data/{name}", 0o600)
        case "come and go":
            with open("/data/temporary", "w"):
                os.unlink("/data/temporary")
    return number, text


@app.function(volumes={"/data": data}, max_containers=2)
def volume_meets(mine: str, other: str) -> str:
    """Two of these, in two containers at once, see each other's files."""
    with open(f"/data/{mine}", "w") as file:
        file.write(mine)
    data.commit()
    started.put(1, partition=other)
    started.get(timeout=30, partition=mine)
    data.reload()
    with open(f"/data/{other}") as file:
        return file.read()


@app.function(volumes={"/data": data.read_only(), "/part": data.with_mount_options(sub_path="a")})
def volume_mounts() -> tuple[str, list[str]]:
    try:
        with open("/data/new", "w"):
            return "written", []
    except OSError as error:
        return str(error.strerror), sorted(os.listdir("/part"))


@app.function(volumes={"/data": data})
def volume_odd(what: str) -> str:
    """Make something that no volume can hold, and commit."""
    path = f"/data/odd-{what}"
    match what:
        case "fifo":
            os.mkfifo(path)
        case "link":
            os.symlink("/etc/passwd", path)
        case "up":
            os.symlink("../../../etc/passwd", path)
    try:
        data.commit()
    except minimodal.Error as error:
        return f"{type(error).__name__}: {error}"
    finally:
        os.unlink(path)
    return "committed"


@app.function(volumes={"/data": data})
def volume_object_ops() -> list[str]:
    """The methods that work from anywhere, from inside a container."""
    import io

    with data.batch_upload(force=True) as upload:
        upload.put_file(io.BytesIO(b"from inside"), "inside.txt")
    found = b"".join(data.read_file("inside.txt")).decode()
    return [found, *[entry.path for entry in data.listdir("/") if entry.path == "inside.txt"]]


@app.function(volumes={"/data": data})
def volume_holds(volume: minimodal.Volume) -> str:
    """Says that it runs, waits, and then reads its own view."""
    del volume
    started.put(1)
    release.get(timeout=30)
    with open("/data/held") as file:
        return file.read()
