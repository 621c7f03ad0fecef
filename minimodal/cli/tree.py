"""The live tree of what is being built and started. The only file that imports rich."""

from __future__ import annotations

from typing import Any, TextIO

from minimodal.progress import QUICK, SHOWN_ID, Progress, shown_seconds

MOST_BARS = 8  # maps shown at one time, the newest


def open_live(stream: TextIO) -> Any:
    """A live region at the end of the terminal; `stop()` wipes it."""
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream, force_terminal=True)
    live = Live(
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    live.start()
    return live


def tree_of(progress: Progress, now: float) -> Any:
    """What is under way, as a rich renderable. Texts are the users': never read as markup."""
    from rich.spinner import Spinner
    from rich.text import Text
    from rich.tree import Tree

    starting = {
        name: containers
        for name, containers in progress.starting.items()
        if name not in progress.started or now - min(containers.values()) >= QUICK
    }
    if progress.maps and not progress.building and not starting:
        return _bars(progress, now)
    tree = Tree(Spinner("dots", Text("Working")), guide_style="dim")
    for digest, build in progress.building.items():
        label = Text.assemble(
            "image ", (digest[:SHOWN_ID], "cyan"), f"  {shown_seconds(now - build.since)}"
        )
        branch = tree.add(label)
        if build.last:
            branch.add(Text(build.last, style="dim", no_wrap=True, overflow="ellipsis"))
    for name, containers in starting.items():
        count = len(containers)
        since = shown_seconds(now - min(containers.values()))
        noun = "container" if count == 1 else f"{count} containers"
        tree.add(Text.assemble((name, "cyan"), f"  {noun} starting  {since}"))
    if progress.maps:
        tree.add(_bars(progress, now))
    return tree


def _bars(progress: Progress, now: float) -> Any:
    """A line for each map: its function, a bar, and its numbers."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for each in tuple(progress.maps)[-MOST_BARS:]:
        bar = ProgressBar(
            total=each.total,
            completed=each.done,
            width=24,
            pulse=each.total is None,
            complete_style="green",
            finished_style="green",
            pulse_style="cyan",
            animation_time=now,
        )
        words = Text(each.words(now), no_wrap=True, overflow="ellipsis")
        grid.add_row(Text(each.function, style="cyan"), bar, words)
    return grid
