"""Volumes in an engine: what handles ask for, and the views of the containers that run.

Everything that touches files runs on threads. A view is committed when its container asks for it,
every few seconds, and when the container has ended, however that happened.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from anyio import to_thread

from minimodal.clock import Clock
from minimodal.errors import Error, InvalidError, NotFoundError, VolumeError
from minimodal.home import Home
from minimodal.named import check_name
from minimodal.protocols import Reply
from minimodal.types import Mount, Payload, VolumeMount
from minimodal.volume_paths import inside

from .ops import Caller, Fields, Ops
from .volume_content import chunk_count
from .volume_files import VolumeFiles
from .volume_idle import IdleViews
from .volume_store import VolumeRecord
from .volume_tree import File, copied, listing, removed
from .volume_uploads import Uploads
from .volume_view import View, make_view

log = logging.getLogger("minimodal.engine")

COMMIT_INTERVAL = 5.0  # seconds between commits of what containers write
RELEASE_WITHIN = 60.0  # seconds for the last commit of a container

_OPS = (
    "open create ephemeral list info remove rename commit reload mounted listdir stat read remove_file "
    "copy upload_begin upload_piece upload_end upload_abort"
).split()


class Volumes:
    """The volumes of one home, as one engine uses them."""

    def __init__(self, home: Home, engine: str, clock: Clock) -> None:
        self.files = VolumeFiles(home, engine)
        self.owner: int | None = None  # uid of containers' files; see Backend.file_owner
        self._idle = IdleViews(self.files.views, engine, clock)
        self._uploads = Uploads(self.files)
        self._views: dict[str, list[View]] = {}  # by container

    def add_to(self, ops: Ops) -> None:
        for name in _OPS:
            ops.add(f"volume.{name}", getattr(self, f"_{name}"))

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(10):
            await self._idle.drop(lambda *_: True)
            await to_thread.run_sync(self._uploads.abort_all)
            await to_thread.run_sync(self.files.remove_own)

    # --- containers --------------------------------------------------------------------------------

    @asynccontextmanager
    async def mounted(
        self, container: str, mounts: Sequence[VolumeMount]
    ) -> AsyncIterator[tuple[Mount, ...]]:
        """Views for a container, for its life; committed and removed behind the block."""
        if not mounts:
            yield ()
            return
        views = self._views[container] = []
        try:
            for number, mount in enumerate(mounts):
                views.append(await self._view(container, number, mount))
            yield tuple(self._mount_of(view) for view in views)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(RELEASE_WITHIN):
                for view in views:
                    await self._commit_leniently(view)
            del self._views[container]
            with anyio.CancelScope(shield=True):  # bounded: it only looks at files and deletes them
                for view in views:
                    await self._leave(view)

    async def _leave(self, view: View) -> None:
        try:
            await self._idle.keep_or_remove((view.store.id, view.prefix), view)
        except (Error, OSError) as error:  # the volume was deleted, or the disk is full
            log.info("a view of %s is not kept: %s", view.store.id, error)
            await to_thread.run_sync(view.remove)

    async def _view(self, container: str, number: int, mount: VolumeMount) -> View:
        """One that was left untouched, or a new one."""
        store = await to_thread.run_sync(self.files.store, mount.volume)
        prefix = inside(mount.sub_path)
        place = self.files.views / f"{self.files.engine}.{container}.{number}.{store.id}"
        idle = None if mount.read_only else self._idle.take((store.id, prefix))
        if idle is not None:
            try:
                await to_thread.run_sync(idle.renew, place, mount.target)
                return idle
            except (Error, OSError):
                await to_thread.run_sync(idle.remove)
            except BaseException:  # the start is cancelled, and nobody else knows of it
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(idle.remove)
                raise
        make = partial(make_view, store, place, prefix, mount.target, mount.read_only, self.owner)
        try:
            return await to_thread.run_sync(make)
        except VolumeError:
            if not await self._idle.drop(lambda *_: True):  # they take room that is needed now
                raise
            return await to_thread.run_sync(make)

    def _mount_of(self, view: View) -> Mount:
        name = view.files.relative_to(self.files.directory).as_posix()
        return Mount("volume", name, view.target, view.read_only)

    async def commit_in_background(self) -> None:
        """A service of the engine."""
        while True:
            await anyio.sleep(COMMIT_INTERVAL)
            await self._idle.drop_old()
            for view in [view for views in self._views.values() for view in views]:
                await self._commit_leniently(view)

    async def reload_of(self, container: str) -> None:
        """Bring what was committed into all views of a container, or a sandbox."""
        for view in self._views.get(container, []):
            await to_thread.run_sync(view.reload)

    async def _commit_leniently(self, view: View) -> None:
        try:
            problems = await to_thread.run_sync(partial(view.commit, lenient=True))
        except NotFoundError:
            return  # the volume was deleted under it
        except (Error, OSError) as error:
            log.error("what was written at %s could not be committed: %s", view.target, error)
            return
        for problem in problems:
            log.warning("not committed: %s", problem)

    def _views_of(self, caller: Caller, fields: Fields) -> list[View]:
        if caller.session is None:
            return []
        views = self._views.get(caller.session.id, [])
        return [view for view in views if view.store.id == fields["id"]]

    # --- operations of containers ------------------------------------------------------------------

    def _mounted(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        return Reply({"targets": [view.target for view in self._views_of(caller, fields)]})

    async def _commit(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        for view in self._views_of(caller, fields):
            await to_thread.run_sync(partial(view.commit, lenient=False))
        return Reply({})

    async def _reload(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        for view in self._views_of(caller, fields):
            await to_thread.run_sync(view.reload)
        return Reply({})

    # --- the volumes -------------------------------------------------------------------------------

    async def _open(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        name = check_name("volume", fields["name"])
        if fields.get("create"):
            record = await to_thread.run_sync(partial(self.files.create, name, exist_ok=True))
        else:
            record = await to_thread.run_sync(self.files.find, name)
        return Reply({"id": record.id})

    async def _create(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        name = check_name("volume", fields["name"])
        create = partial(self.files.create, name, exist_ok=bool(fields.get("exist_ok")))
        return Reply({"id": (await to_thread.run_sync(create)).id})

    async def _ephemeral(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        return Reply({"id": (await to_thread.run_sync(self.files.create_ephemeral)).id})

    async def _list(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """With `sizes` also how many files and bytes each has."""

        def rows() -> list[dict[str, Any]]:
            found = [_shown(each) for each in self.files.list()]
            for row in found if fields.get("sizes") else ():
                tree = self.files.store(row["id"]).tree().values()
                sizes = [entry.size for entry in tree if isinstance(entry, File)]
                row |= {"files": len(sizes), "nbytes": sum(sizes)}
            return found

        return Reply({"objects": await to_thread.run_sync(rows)})

    async def _info(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        return Reply(
            _shown(await to_thread.run_sync(lambda: self.files.store(fields["id"]).record))
        )

    async def _remove(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        name, force = fields.get("name"), bool(fields.get("force"))

        def remove() -> None:
            try:
                found = self.files.find(name).id if name is not None else str(fields["id"])
                self.files.remove(found, force=force or name is None)
            except NotFoundError:
                if not fields.get("missing_ok"):
                    raise

        await to_thread.run_sync(remove)
        await self._idle.drop(lambda _, __, key: not self.files.has(key[0]))
        return Reply({})

    async def _rename(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        new_name = check_name("volume", fields["new_name"])
        await to_thread.run_sync(self.files.rename, check_name("volume", fields["name"]), new_name)
        return Reply({})

    # --- their files -------------------------------------------------------------------------------

    async def _listdir(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        path, recursive = inside(fields["path"]), bool(fields.get("recursive"))

        def rows() -> bytes:
            return json.dumps(listing(self._tree(fields), path, recursive)).encode()

        return Reply({}, Payload(await to_thread.run_sync(rows)))

    async def _stat(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        path = inside(fields["path"])
        tree = await to_thread.run_sync(self._tree, fields)
        entry = tree.get(path)
        if not isinstance(entry, File):
            rows = await to_thread.run_sync(listing, tree, path, False)  # raises FileNotFoundError
            kind = rows[0][1] if entry is not None and rows else "directory"
            raise IsADirectoryError(f"{path or '/'!r} in the volume is a {kind}, no file")
        return Reply(
            {"digest": entry.digest, "size": entry.size, "chunks": chunk_count(entry.size)}
        )

    async def _read(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        def read() -> bytes:
            contents = self.files.store(fields["id"]).contents
            what = f"{fields['path']!r} in the volume"
            return contents.chunk(str(fields["digest"]), int(fields["index"]), what)

        return Reply({}, Payload(await to_thread.run_sync(read)))

    async def _remove_file(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        path, recursive = inside(fields["path"]), bool(fields.get("recursive"))
        await self._apply(fields, lambda tree: removed(tree, path, recursive))
        return Reply({})

    async def _copy(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        sources, target = [inside(each) for each in fields["sources"]], inside(fields["target"])
        into, recursive = bool(fields.get("into")), bool(fields.get("recursive"))
        if not sources:
            raise InvalidError("copy needs one path or more")
        await self._apply(
            fields, lambda tree: copied(tree, sources, target, into=into, recursive=recursive)
        )
        return Reply({})

    async def _apply(self, fields: Fields, change: Callable[[Any], Any]) -> None:
        await to_thread.run_sync(lambda: self.files.store(fields["id"]).apply(change))

    def _tree(self, fields: Fields) -> Any:
        return self.files.store(fields["id"]).tree()

    # --- uploads -----------------------------------------------------------------------------------

    async def _upload_begin(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        return Reply({"upload": await to_thread.run_sync(self._uploads.begin, fields["id"])})

    async def _upload_piece(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        place = (fields["upload"], int(fields["number"]), int(fields["offset"]))
        if min(place[1:]) < 0:
            raise VolumeError("a piece of an upload has a number and an offset from 0")
        await to_thread.run_sync(self._uploads.piece, *place, payload.data)
        return Reply({})

    async def _upload_end(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        end = (fields["upload"], bytes(payload.data), bool(fields.get("force")))
        await to_thread.run_sync(self._uploads.end, *end)
        return Reply({})

    async def _upload_abort(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        await to_thread.run_sync(self._uploads.abort, fields["upload"])
        return Reply({})


def _shown(record: VolumeRecord) -> dict[str, Any]:
    return {"id": record.id, "name": record.name, "created": record.created}
