"""A script, run by itself inside a container: what a sandbox, a tunnel or a terminal needs there.

    python -I -S -c <this text> <JSON request>

`keep` holds the container until its engine is gone, `pty` runs a command on a terminal of its own,
`relay` joins stdin and stdout to a TCP port, `files` looks at and changes files, `pack` writes
directories as a tar archive. Standard library only; imports nothing of ours: it runs in a bare
interpreter of the image's.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import stat
import struct
import sys
from typing import Any

CHUNK = 64 * 1024
CONNECTED = b"+"  # first byte of a relay's output
LENGTH = struct.Struct(">I")  # of each piece that follows
FRAME = struct.Struct(">BI")  # what a pty reads: kind, length of what follows
INPUT, RESIZE = 0, 1
SIZE = struct.Struct(">HH")  # rows, columns
GREETING = struct.pack("<II", 1, 1) + b"+"  # opens a connection, in the words of agent/relay.py


def keep(request: dict[str, Any]) -> int:
    """Stay until the engine at the other end of the container's socket is gone, however it ended.

    One on another machine can put no socket here: it is at the other end of stdin and stdout.
    """
    path = os.environ.get("MINIMODAL_SOCKET") or request["socket"]
    if not os.path.exists(path):
        write_all(1, GREETING)
        os.read(0, CHUNK)  # its end of the connection, or that of stdin where it died
        return 0
    engine = socket.socket(socket.AF_UNIX)
    engine.connect(path)
    while engine.recv(CHUNK):
        pass
    return 0


def relay(request: dict[str, Any]) -> int:
    """Join stdin and stdout to a port on loopback, until both have said that they are done.

    What comes from the port is told in pieces with their length before them; an empty one is its end:
    stdout itself stays open, because its own end is not seen everywhere before that of the process.
    """
    peer = socket.create_connection(("127.0.0.1", request["port"]), timeout=10)
    peer.settimeout(None)
    write_all(1, CONNECTED)
    reading: list[int] = [0, peer.fileno()]
    while reading:
        for fd in select.select(reading, [], [])[0]:
            data = os.read(fd, CHUNK)
            if not data:
                reading.remove(fd)
            if fd != 0:
                write_all(1, LENGTH.pack(len(data)) + data)
            elif data:
                peer.sendall(data)
            else:
                peer.shutdown(socket.SHUT_WR)
    return 0


def pty(request: dict[str, Any]) -> int:
    """Run a command on a terminal of its own; stdin brings frames of input and of new sizes."""
    import pty as terminals

    child, terminal = terminals.fork()
    if child == 0:
        try:
            os.execvp(request["command"][0], request["command"])
        except OSError as error:
            write_all(2, f"{request['command'][0]}: {error.strerror}\n".encode())
            os._exit(127)
    resize(terminal, request["rows"], request["columns"])
    reading, unread = [0, terminal], b""
    while terminal in reading:
        for fd in select.select(reading, [], [])[0]:
            try:
                data = os.read(fd, CHUNK)
            except OSError:  # EIO: the last process of the terminal has closed it
                data = b""
            if not data:
                reading.remove(fd)
            elif fd == terminal:
                write_all(1, data)
            else:
                unread = take_frames(terminal, unread + data)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def take_frames(terminal: int, data: bytes) -> bytes:
    while len(data) >= FRAME.size:
        kind, length = FRAME.unpack_from(data)
        if len(data) < FRAME.size + length:
            break
        content, data = data[FRAME.size : FRAME.size + length], data[FRAME.size + length :]
        if kind == RESIZE:
            resize(terminal, *SIZE.unpack(content))
        else:
            write_all(terminal, content)
    return data


def resize(terminal: int, rows: int, columns: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def files(request: dict[str, Any]) -> int:
    """One operation on files. Its answer is JSON on stdout, or the bytes of a file."""
    path = request.get("path", "")
    do = request["do"]
    if do == "read":
        with open(path, "rb") as source:
            shutil.copyfileobj(source, sys.stdout.buffer, CHUNK)
        return 0
    if do == "write":
        write(path, request.get("append", False))
    elif do == "make":
        os.makedirs(path, exist_ok=request["parents"]) if request["parents"] else os.mkdir(path)
    elif do == "remove":
        if request["recursive"] and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.remove(path)
    answer: Any = None
    if do == "list":
        answer = [described(os.path.join(path, name)) for name in sorted(os.listdir(path))]
    elif do == "stat":
        answer = described(path)
    sys.stdout.write(json.dumps(answer))
    return 0


def write(path: str, append: bool) -> None:
    """The whole of stdin, at once or not at all; parents are made."""
    os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
    if append:
        with open(path, "ab") as target:
            shutil.copyfileobj(sys.stdin.buffer, target, CHUNK)
        return
    if os.path.isdir(path):
        raise IsADirectoryError(21, "Is a directory", path)
    draft = f"{path}.minimodal-{os.getpid()}"
    try:
        with open(draft, "wb") as target:
            shutil.copyfileobj(sys.stdin.buffer, target, CHUNK)
        if os.path.exists(path):
            shutil.copymode(path, draft)
        os.replace(draft, path)
    finally:
        if os.path.lexists(draft):
            os.remove(draft)


def described(path: str) -> dict[str, Any]:
    found = os.lstat(path)
    kinds = ((stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symlink"), (stat.S_ISREG, "file"))
    return {
        "name": os.path.basename(path),
        "path": path,
        "type": next((name for test, name in kinds if test(found.st_mode)), "other"),
        "size": found.st_size,
        "mode": stat.S_IMODE(found.st_mode),
        "modified": found.st_mtime,
        "target": os.readlink(path) if stat.S_ISLNK(found.st_mode) else None,
    }


def pack(request: dict[str, Any]) -> int:
    """Directories, with all that can be read in them, as a tar archive on stdout."""
    import tarfile

    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for top in request["directories"]:
            device = os.stat(top).st_dev
            for place, names, others in os.walk(top):
                # What is mounted, such as a volume, is not of these files.
                names[:] = [n for n in names if os.lstat(f"{place}/{n}").st_dev == device]
                for name in ("", *others, *(n for n in names if os.path.islink(f"{place}/{n}"))):
                    path = os.path.join(place, name) if name else place
                    if os.access(path, os.R_OK) or os.path.islink(path):
                        archive.add(path, recursive=False)
    return 0


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def main() -> int:
    request = json.loads(sys.argv[1])
    doing = {"keep": keep, "relay": relay, "pty": pty, "files": files, "pack": pack}
    try:
        return doing[request["run"]](request)
    except OSError as error:
        words = {"error": type(error).__name__, "message": f"{error.strerror}: {error.filename}"}
        sys.stderr.write(json.dumps(words))
        return 1


if __name__ == "__main__":
    sys.exit(main())
