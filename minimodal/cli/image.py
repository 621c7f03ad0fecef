"""`minimodal image`: list, build, inspect, remove and prune images; make a base without a registry."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .failure import UsageError
from .group import confirm
from .listing import ago, print_json, print_table, show, shown_bytes, since
from .parser import Parser, add_backend, add_script, add_yes, load_settings
from .subcommands import Sub, dispatch, listing_parser

if TYPE_CHECKING:
    from minimodal.image import Image
    from minimodal.images.lifecycle import Pruned, Shelves, StoredImage

T = TypeVar("T")


def main(arguments: list[str]) -> int:
    subs = {
        "ls": Sub(_ls, "images, their size, last use, and whether containers have them"),
        "build": Sub(_build, "build the images of a script now"),
        "inspect": Sub(_inspect, "the layers of an image"),
        "rm": Sub(_rm, "remove images, and the layers that no other needs"),
        "prune": Sub(_prune, "remove images that were not used lately"),
        "bootstrap": Sub(_bootstrap, "make python:3.11-slim from Debian's packages"),
    }
    return dispatch("image", subs, arguments, "minimodal image prune --older-than 30d --keep 5")


def _ls(arguments: list[str]) -> int:
    parser = listing_parser("image ls", "List images, the last used first.", "image ls --layers")
    parser.add_argument(
        "--layers", action="store_true", help="also the layers that they consist of"
    )
    _add_where(parser)
    options = parser.parse(arguments)

    async def look(shelves: Shelves) -> list[dict[str, Any]]:
        from minimodal.images.lifecycle import chain_of, list_images

        images = await list_images(shelves)
        shown = [image for image in images if image.is_top or options.layers]
        return [_row(image, chain_of(images, image)) for image in shown]

    rows = _on_shelves(options, look)
    return show(
        options,
        "images",
        {"images": rows},
        ("image", "backend", "size", "layers", "last used", "in use", "last step"),
        [
            (
                row["digest"][:12],
                row["backend"],
                shown_bytes(row["total_bytes"]),
                row["layers"],
                f"{ago(row['last_used'])} ago",
                "yes" if row["in_use"] else "",
                row["step"][:60],
            )
            for row in rows
        ],
        empty="no image was built here",
    )


def _inspect(arguments: list[str]) -> int:
    parser = listing_parser(
        "image inspect", "Show the layers of an image, lowest first.", "image inspect 3f2a"
    )
    parser.add_argument("digest", help="an image or a layer: its digest, or the start of it")
    _add_where(parser)
    options = parser.parse(arguments)

    async def look(shelves: Shelves) -> list[dict[str, Any]]:
        from minimodal.images.lifecycle import inspect

        chain = await inspect(shelves, options.digest)
        return [_row(image, chain[: n + 1]) for n, image in enumerate(chain)]

    rows = _on_shelves(options, look)
    if options.json:
        print_json("image", {**rows[-1], "chain": rows})
        return 0
    top = rows[-1]
    print(f"{top['digest']}  {top['backend']}, {shown_bytes(top['total_bytes'])}", file=sys.stderr)
    print_table(
        ("layer", "size", "last used", "in use", "step"),
        [
            (
                row["digest"][:12],
                shown_bytes(row["size_bytes"]),
                f"{ago(row['last_used'])} ago",
                "yes" if row["in_use"] else "",
                row["step"],
            )
            for row in rows
        ],
    )
    return 0


def _rm(arguments: list[str]) -> int:
    parser = listing_parser(
        "image rm",
        "Remove images, and the layers below them that no other image needs. One in use stays.",
        "image rm 3f2a 77c1",
    )
    parser.add_argument("digests", nargs="+", metavar="digest", help="or the start of one")
    _add_where(parser)
    options = parser.parse(arguments)

    async def work(shelves: Shelves) -> list[Pruned]:
        from minimodal.images.lifecycle import remove

        return [await remove(shelves, digest) for digest in options.digests]

    return _say_removed(_on_shelves(options, work), options.json)


def _prune(arguments: list[str]) -> int:
    parser = listing_parser(
        "image prune",
        "Remove images that no container has, and the layers that nothing needs any more.",
        "image prune --older-than 30d --keep 5 -y",
    )
    parser.add_argument("--older-than", metavar="AGE", help="not used for: 12h, 30d, 4w")
    parser.add_argument(
        "--keep", type=int, default=0, metavar="N", help="not the N images used last"
    )
    add_yes(parser)
    _add_where(parser)
    options = parser.parse(arguments)
    if options.keep < 0:
        raise UsageError("minimodal image prune: --keep is a number of images, 0 or more.")
    now = time.time()
    age = now - since(options.older_than) if options.older_than else 0.0
    if age < 0:
        raise UsageError(f"minimodal image prune: {options.older_than} is still to come.")

    async def work(shelves: Shelves) -> list[Pruned]:
        from minimodal.images.lifecycle import list_images, prunable, prune

        images = await list_images(shelves)
        candidates, kept = prunable(images, older_than=age, keep=options.keep, now=now)
        going = [i for i in images if i.digest in candidates - kept and not i.in_use]
        if not going:
            return []
        size = shown_bytes(sum(image.size_bytes for image in going))
        confirm(f"Remove up to {len(going)} layers, {size}?", options.yes)
        return [await prune(shelves, older_than=age, keep=options.keep, now=now)]

    return _say_removed(_on_shelves(options, work), options.json)


def _build(arguments: list[str]) -> int:
    parser = listing_parser(
        "image build",
        "Build the images of a script's functions now, so that its first call need not wait.",
        "image build script.py",
    )
    add_script(parser)
    parser.add_argument("--force", action="store_true", help="build every layer again")
    parser.add_argument("-q", "--quiet", action="store_true", help="errors only")
    add_backend(parser)
    options = parser.parse(arguments)
    from minimodal.host import Host

    from .choice import apps_of
    from .reference import find, load, parse
    from .screen import Screen

    config = load_settings(backend=options.backend)
    if options.force:
        os.environ["MINIMODAL_FORCE_BUILD"] = "1"
    script = find(parse(options.reference, is_module=options.module))
    sys.argv = [str(script.path)]
    apps = apps_of(script, load(script))
    built: list[dict[str, Any]] = []
    with Screen(quiet=options.quiet).of(Host(config, role="build")):
        for app in apps:
            for image, functions in _images_of(app):
                started = time.monotonic()
                image.build(app)
                seconds = time.monotonic() - started
                row = {"digest": image.digest(), "functions": functions, "seconds": seconds}
                built.append(row)
    return show(
        options,
        "image_build",
        {"images": built},
        ("image", "functions"),
        [(row["digest"][:12], ", ".join(row["functions"])) for row in built],
        empty=f"{script.reference} has no function",
    )


def _images_of(app: Any) -> list[tuple[Image, list[str]]]:
    """Each image of an app once, with the names of the functions that have it."""
    found: dict[int, tuple[Image, list[str]]] = {}
    for name, each in {**app.registered_functions, **app.registered_classes}.items():
        image = each._options.image or app._default_image()
        found.setdefault(id(image), (image, []))[1].append(name)
    return list(found.values())


def _bootstrap(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal image bootstrap",
        "Make a base image from Debian's packages and leave it in the Docker engine as "
        "python:VERSION-slim.",
        "minimodal image bootstrap --python 3.11",
    )
    parser.add_argument("--python", default="3.11", metavar="VERSION", help="3.11 or 3.13")
    parser.add_argument("--mirror", metavar="URL", help="where Debian's packages come from")
    parser.add_argument("--force", action="store_true", help="anew, whatever is there")
    parser.add_argument("--docker-host", metavar="URL", help="the Docker engine to leave it in")
    parser.add_argument("-q", "--quiet", action="store_true", help="errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="all that its tools print")
    options = parser.parse(arguments)
    config = load_settings(docker_host=options.docker_host)

    import anyio

    from minimodal.backends.docker_connect import open_first
    from minimodal.home import open_home
    from minimodal.images.bootstrap import bootstrap, release_of

    from .one_line import OneLine

    release_of(options.python)

    async def make() -> str:
        home = open_home(config.home)
        async with open_first(config.docker_host) as api:
            with OneLine(quiet=options.quiet, verbose=options.verbose) as line:
                return await bootstrap(
                    api,
                    home,
                    options.python,
                    line.say,
                    mirror=options.mirror,
                    force=options.force,
                    detail=line.detail,
                )

    print(anyio.run(make))
    return 0


# --- what the commands share ----------------------------------------------------------------------


def _add_where(parser: Parser) -> None:
    add_backend(parser)
    parser.add_argument(
        "--all", action="store_true", help="of Docker, also what other homes have built there"
    )


def _on_shelves(options: Any, work: Callable[[Shelves], Awaitable[T]]) -> T:
    """What `work` gives for the images of the backends that were asked for: all, left out."""
    import anyio

    from minimodal.home import open_home
    from minimodal.images.shelves import open_shelves

    settings = load_settings(backend=options.backend)
    backend = options.backend or "auto"  # unless asked: whatever is here, not what would run now

    async def main() -> T:
        home = open_home(settings.home)
        shelves = open_shelves(home, backend, settings.docker_host, everyones=options.all)
        async with shelves as opened:
            return await work(opened)

    return anyio.run(main)


def _row(image: StoredImage, chain: Sequence[StoredImage]) -> dict[str, Any]:
    return {
        "digest": image.digest,
        "backend": image.backend,
        "parent": image.parent,
        "size_bytes": image.size_bytes,
        "total_bytes": sum(each.size_bytes for each in chain),
        "layers": len(chain),
        "last_used": image.last_used,
        "in_use": image.in_use,
        "step": image.step,
    }


def _say_removed(done: Sequence[Pruned], as_json: bool) -> int:
    removed = [digest for each in done for digest in each.removed]
    freed = sum(each.freed_bytes for each in done)
    if as_json:
        print_json("images_removed", {"removed": removed, "freed_bytes": freed})
    else:
        for digest in removed:
            print(digest[:12])
        print(f"removed {len(removed)} layers, {shown_bytes(freed)}", file=sys.stderr)
    return 0
