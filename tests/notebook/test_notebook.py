"""Notebooks as people use them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minimodal.leaks import Leak, children, patiently
from tests.notebook.conftest import PRELUDE, ROOT, Notebook, printed, value

pytestmark = pytest.mark.filterwarnings("default")  # those of Jupyter's packages are not ours


def test_calls_just_work_and_travel_with_what_they_use(notebook: Notebook) -> None:
    (notebook.place / "beside.py").write_text(
        "import deeper\ndef twice(x): return deeper.two() * x\n"
    )
    (notebook.place / "deeper.py").write_text("def two(): return 2\n")
    notebook.run(
        """
        import beside
        from dataclasses import dataclass

        @dataclass
        class Point:
            x: int

        factor = 10

        def scale(x):
            return factor * x

        @app.function()
        def move(x):
            return Point(scale(beside.twice(x)))

        @app.function()
        def nested(x):
            return move.remote(x).x
        """
    )
    assert value(notebook.run("move.remote(1)")) == "Point(x=20)"
    assert value(notebook.run("(await move.remote.aio(2)) == Point(40)")) == "True"
    assert value(notebook.run("[p.x for p in move.map(range(3))]")) == "[0, 20, 40]"
    assert value(notebook.run("[p.x async for p in move.map.aio(range(3))]")) == "[0, 20, 40]"
    assert value(notebook.run("nested.remote(2)")) == "40"


def test_a_cell_that_is_run_again_counts(notebook: Notebook) -> None:
    notebook.run(
        """
        import time
        def helper():
            return "old"

        @app.function()
        def f():
            return helper()

        @app.function()
        def same():
            import os
            return os.environ["MINIMODAL_TASK_ID"]

        @app.function()
        def slow():
            print("begun", flush=True)
            time.sleep(1.5)
            return helper()
        """
    )
    assert value(notebook.run("first = same.remote(), f.remote(); first[1]")) == "'old'"
    notebook.run("running = slow.spawn(); time.sleep(1)")
    notebook.run("def helper():\n    return 'new'")
    assert value(notebook.run("f.remote()")) == "'new'"
    notebook.run("@app.function()\ndef f(x=1):\n    return helper(), x")
    assert value(notebook.run("f.remote(x=2)")) == "('new', 2)"
    assert value(notebook.run("same.remote() == first[0]")) == "True"  # its container stayed
    assert value(notebook.run("running.get()")) == "'old'"
    assert value(notebook.run("len(app.registered_functions)")) == "3"


def test_output_appears_under_the_cell_that_called(notebook: Notebook) -> None:
    from nbclient.util import run_sync

    notebook.run(
        """
        import time

        @app.function()
        def inner():
            print("inner", flush=True)

        @app.function()
        def talk(n):
            for i in range(n):
                print("line", i, flush=True)
                time.sleep(0.3)
            inner.remote()
        """
    )
    assert printed(notebook.run("talk.remote(0)")) == "inner\n"
    # nbclient drops what comes late for an earlier cell; a notebook's page shows it there.
    client = notebook.client.kc
    assert client is not None
    started = client.execute("call = talk.spawn(4)\nprint('spawned')")
    waited = client.execute("print('waiting')\ncall.get()")
    texts = {started: "", waited: ""}
    message: dict[str, Any] = {"msg_type": ""}
    while (
        message["msg_type"] != "status"
        or message["content"]["execution_state"] != "idle"
        or (message["parent_header"]["msg_id"] != waited)
    ):
        message = run_sync(client.get_iopub_msg)(timeout=30)
        if message["msg_type"] == "stream":
            texts[message["parent_header"]["msg_id"]] += message["content"]["text"]
    assert texts[waited] == "waiting\n"
    assert texts[started] == "spawned\nline 0\nline 1\nline 2\nline 3\ninner\n"


def test_errors_name_the_cell(notebook: Notebook) -> None:
    notebook.run("@app.function()\ndef broken():\n    raise KeyError('mine')")
    caught = notebook.run("try:\n    broken.remote()\nexcept KeyError as e:\n    print(repr(e))")
    assert printed(caught) == "KeyError('mine')\n"


def test_reprs_are_html_and_escaped(notebook: Notebook) -> None:
    notebook.run(
        """
        @app.function(timeout=30)
        def f(x: int = 1, y="<b>"):
            "Adds <i>nothing</i>."
            return x
        image = minimodal.Image.debian_slim().run_commands("echo '<script>'")
        """
    )
    [shown] = notebook.run("f")
    page = shown["data"]["text/html"]
    assert "f(x: int = 1, y=&#x27;&lt;b&gt;&#x27;)" in page
    assert "Adds &lt;i&gt;nothing&lt;/i&gt;." in page
    assert "30" in page
    assert "<b>&" not in page
    assert shown["data"]["text/plain"] == "<Function f>"
    for name in ("app", "image", "f.spawn()", "minimodal.Volume.from_name('v')"):
        [shown] = notebook.run(name)
        assert set(shown["data"]) == {"text/plain", "text/html"}, name
        assert "<script>" not in shown["data"]["text/html"]


def test_a_map_shows_how_far_it_is(notebook: Notebook) -> None:
    notebook.run(
        """
        @app.function()
        def f(x):
            return 1 // x
        """
    )
    outputs = notebook.run(
        """
        with minimodal.enable_output():
            results = list(f.map([1, 2, 0, 4], return_exceptions=True))
        """
    )
    [shown] = [each for each in outputs if each["output_type"] == "display_data"]
    assert '<progress max="4" value="4"></progress>' in shown["data"]["text/html"]
    assert shown["data"]["text/plain"].startswith("f: 4 of 4 done, 1 failed")
    assert not [
        each for each in notebook.run("list(f.map([1]))") if each["output_type"] == "display_data"
    ]


@pytest.mark.parametrize("how", ["shutdown", "restart", "kill"])
def test_a_kernel_that_ends_leaves_no_container(how: str, surroundings: Path) -> None:
    from jupyter_client.manager import start_new_kernel

    before = set(children())
    manager, client = start_new_kernel(cwd=str(surroundings), env=dict(os.environ))
    code = f"{PRELUDE}\n@app.function()\ndef f():\n    return 1\nprint(f.remote())"
    reply = client.execute_interactive(code, timeout=50, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok"
    assert len(set(children()) - before) > 1
    if how == "restart":
        manager.restart_kernel(now=False)
        client.wait_for_ready(timeout=30)
        started = patiently(lambda: more_than_the_kernel(before))
        assert started == []
    client.stop_channels()
    manager.shutdown_kernel(now=how == "kill")
    assert (
        patiently(lambda: frozenset(Leak("processes", x) for x in set(children()) - before)) == []
    )


def more_than_the_kernel(before: set[str]) -> frozenset[Leak]:
    """What runs beside the one process of a kernel."""
    found = sorted(set(children()) - before)
    return frozenset(Leak("processes", each) for each in found) if len(found) > 1 else frozenset()


def test_the_example(surroundings: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    client = NotebookClient(book, timeout=50, resources={"metadata": {"path": surroundings}})
    client.execute(env=dict(os.environ))
    shown = [value(cell.outputs) for cell in book.cells if "estimate." in cell.source]
    assert shown[0].startswith("Estimate(samples=20000, pi=3.1")
    assert [float(each.strip("'")) for each in shown[2:4]] == pytest.approx([3.14, 3.14], abs=0.05)
