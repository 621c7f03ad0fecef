"""The sandbox in which a build step runs: what it writes lands in the draft of a layer.

The draft's `files` is the root directory itself, so a new directory such as /models is kept too. The
host's system directories, with the layers below, are overlaid with the draft's directories of the
same name. Steps run as uid 0 of a user namespace, an unprivileged uid of the host, with the few
capabilities that dpkg needs and none over mounts: the host's files are lower layers or read-only,
whatever a step tries. The namespace knows the host's root, so that directories of /usr may be
changed in an overlay; therefore no step can change its uid: it would be root outside.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from minimodal.backends.host_tree import Overlay, mount_points, overlays
from minimodal.backends.identity import PREFERRED_UID
from minimodal.backends.rootfs import RESERVED, SYSTEM
from minimodal.backends.sandbox_plan import NAMESPACES, arguments_fd
from minimodal.backends.userns_helper import SANDBOX_ID
from minimodal.protocols import Report

from .layer_store import Draft, StoredLayer
from .running import Command, run

BUILD = "/run/minimodal"  # what is ours in the sandbox; /run is its own memory
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL")
_DEPTH = {"/usr": 2, "/var": 2}  # how deep an ordinary user's build may write; elsewhere 1
_IDS = 65534  # uids and gids of the host that a build has, where the host has as many
_ROOT_OF_HOST = 65534


class BuildIdentity(NamedTuple):
    """Who builds. `uid` is the host's number of the namespace's root; None: the engine's own user."""

    arguments: tuple[str, ...] = ()  # of bwrap
    prefix: tuple[str, ...] = ()  # before bwrap
    uid: int | None = None
    many_ids: bool = False  # whether files can belong to several users, as dpkg wants
    sandbox_uid: int | None = None  # who the containers are

    def give(self, path: Path) -> Path:
        """Let the build's root own a file or directory."""
        if self.uid is not None:
            os.chown(path, self.uid, self.uid, follow_symlinks=False)
        return path


def build_identity(sandbox_uid: int) -> BuildIdentity:
    """Root makes a namespace whose ids are unprivileged ones; others get one id, their own."""
    if os.getuid() != 0:
        return BuildIdentity(("--unshare-user", "--disable-userns", "--uid", "0", "--gid", "0"))
    many = sandbox_uid == PREFERRED_UID
    uid = PREFERRED_UID - SANDBOX_ID if many else sandbox_uid
    id_map = f"0 {uid} {_IDS if many else 1}\n{_ROOT_OF_HOST} 0 1\n"
    script = str(Path(__file__).with_name("enter_build.py"))
    prefix = (sys.executable, "-I", "-S", script, id_map)
    return BuildIdentity((), prefix, uid, many, sandbox_uid)


@dataclass(frozen=True, slots=True)
class BuildSandbox:
    """One step's view. `binds`: (path of the host, path inside, writable), outer ones first."""

    bwrap: str
    identity: BuildIdentity
    draft: Draft
    below: Sequence[StoredLayer]
    binds: Sequence[tuple[str, str, bool]] = ()
    mounts: Sequence[str] = field(default_factory=mount_points)

    async def run(self, command: Command, report: Report) -> None:
        """Run one command inside. Raises StepFailed."""
        options = [*self._options(command.cwd or "/"), "--clearenv"]
        for name, value in command.env.items():
            options += ["--setenv", name, value]
        fd = arguments_fd(options)
        try:
            outside = Command(
                argv=[*self.identity.prefix, self.bwrap, "--args", str(fd), "--", *command.argv],
                env={"PATH": os.defpath},
                shown=command.shown,
                pass_fds=(fd,),
                hidden=command.hidden,
                timeout=command.timeout,
            )
            await run(outside, report)
        finally:
            os.close(fd)

    def _options(self, workdir: str) -> list[str]:
        options = [*self.identity.arguments, *NAMESPACES]
        options += ["--new-session", "--hostname", "build", "--cap-drop", "ALL"]
        for capability in CAPABILITIES:
            options += ["--cap-add", f"CAP_{capability}"]
        options += ["--bind", str(self.draft.files), "/"]
        for _, arguments in self._tree(self._overlay):
            options += arguments
        options += ["--perms", "1777", "--tmpfs", "/tmp", "--perms", "0755", "--tmpfs", "/run"]
        if os.path.isdir("/var/tmp"):
            options += ["--perms", "1777", "--tmpfs", "/var/tmp"]
        options += ["--proc", "/proc", "--dev", "/dev", "--ro-bind", "/proc/sys", "/proc/sys"]
        options += _resolver()
        for source, target, writable in self.binds:
            options += ["--bind" if writable else "--ro-bind", source, target]
        return [*options, "--chdir", workdir]

    def _tree(self, overlay: Overlay) -> Iterator[tuple[str, list[str]]]:
        """What lies at the root: (path, arguments), the host's and the layers' directories."""
        names = dict.fromkeys(SYSTEM)
        for layer in self.below:
            names.update(dict.fromkeys(n for n in layer.top_directories() if n not in RESERVED))
        for name in names:
            uppers = [str(layer.files / name) for layer in self.below]
            uppers = [upper for upper in uppers if os.path.lexists(upper)]
            path = f"/{name}"
            if name in SYSTEM and os.path.islink(path) and not uppers:
                yield path, ["--symlink", os.readlink(path), path]
            elif uppers and os.path.islink(uppers[-1]):
                yield path, ["--symlink", os.readlink(uppers[-1]), path]
            elif uppers and not os.path.isdir(uppers[-1]):
                yield path, ["--ro-bind", uppers[-1], path]
            elif name in SYSTEM and os.path.isdir(path):
                yield from overlays(path, uppers, self.mounts, overlay)
            elif uppers:
                yield path, overlay(path, uppers)
        for name in ("root", "home"):
            if name not in names:
                yield f"/{name}", ["--perms", "0755", "--dir", f"/{name}"]

    def _overlay(self, path: str, sources: Sequence[str]) -> list[str]:
        """What is written below `path` lands in the draft, at the same path."""
        name = path.lstrip("/")
        upper, work = self.draft.files / name, self.draft.path / "work" / name.replace("/", "+")
        for directory in (upper, work):
            _make(directory, self.identity)
        if not os.listdir(upper):
            _like(Path(sources[-1]), upper)
            if self.identity.uid is None and sources[0] == path:
                _own(path, upper, _DEPTH.get(path, 1))
        words = [word for source in sources for word in ("--overlay-src", source)]
        return [*words, "--overlay", str(upper), str(work), path]

    def clean(self) -> None:
        """Remove from the draft what only this sandbox put there: mount points without content."""
        if self.identity.uid is None:
            _disown(self.draft.files)
        targets = [path for path, _ in self._tree(lambda *_: [])]
        targets += [target for _, target, _ in self.binds]
        for target in sorted(targets, key=lambda path: -path.count("/")):
            self._remove_empty(target)
        for name in (*RESERVED, "var/tmp"):
            self._remove_empty(f"/{name}")

    def hand_over(self) -> None:
        """Directories that only the image has belong to the containers' user, who may write there.

        And nothing in a layer has the power of the host's root: no setuid bits, no files of root.
        """
        for entry in os.scandir(self.draft.files):
            owner = self.identity.uid if entry.name in SYSTEM else self.identity.sandbox_uid
            for path in _tree_of(entry.path):
                info = os.lstat(path)
                if owner is not None and (info.st_uid == 0 or entry.name not in SYSTEM):
                    os.chown(path, owner, owner, follow_symlinks=False)
                if stat.S_ISREG(info.st_mode) and info.st_mode & (stat.S_ISUID | stat.S_ISGID):
                    os.chmod(path, stat.S_IMODE(info.st_mode) & 0o777)

    def _remove_empty(self, target: str) -> None:
        place = self.draft.files / target.lstrip("/")
        with suppress(OSError):
            mode = place.lstat().st_mode
            if stat.S_ISREG(mode) and place.stat().st_size == 0:
                place.unlink()
            elif (
                stat.S_ISLNK(mode)
                and os.path.islink(target)
                and os.readlink(place) == os.readlink(target)
            ):
                place.unlink()
            while place != self.draft.files:
                place.rmdir()  # fails, and ends this, at the first one that holds something
                place = place.parent


def _make(directory: Path, identity: BuildIdentity) -> None:
    """With its parents, each owned by the build's root."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for place in reversed(missing):
        place.mkdir(mode=0o755)
        identity.give(place)


def _own(path: str, upper: Path, depth: int) -> None:
    """Make the directories that installations write to: a merged directory has its upper's owner.

    Without this an ordinary user, who is root inside, could write nothing into the host's /usr/local.
    """
    with suppress(PermissionError), os.scandir(path) as entries:
        for entry in entries:
            if depth and entry.is_dir(follow_symlinks=False):
                place = upper / entry.name
                place.mkdir(mode=0o755)
                _own(entry.path, place, depth - 1 if entry.path != "/usr/local" else 3)


def _disown(files: Path) -> None:
    """Remove what `_own` made and nothing was put into. An opaque directory hides: it stays."""
    for place, _, _ in os.walk(files, topdown=False):
        inside = f"/{os.path.relpath(place, files)}"
        if os.path.isdir(inside) and "user.overlay.opaque" not in os.listxattr(place):
            with suppress(OSError):
                os.rmdir(place)


def _tree_of(path: str) -> Iterator[str]:
    yield path
    if os.path.isdir(path) and not os.path.islink(path):
        for place, names, files in os.walk(path):
            yield from (os.path.join(place, name) for name in (*names, *files))


def _like(source: Path, target: Path) -> None:
    """The merged directory has the mode of its upper: it is to be that of what lies below."""
    with suppress(OSError):
        target.chmod(stat.S_IMODE(source.stat().st_mode) & 0o1777)


def _resolver() -> list[str]:
    """/etc/resolv.conf is often a link into /run, which the sandbox does not share."""
    real = os.path.realpath("/etc/resolv.conf")
    return ["--ro-bind", real, real] if real.startswith("/run/") and os.path.isfile(real) else []
