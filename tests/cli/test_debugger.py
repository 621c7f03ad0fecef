"""`minimodal run -i`: breakpoint(), pdb and interact() in containers get the terminal, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests import ptys
from tests.cli.conftest import Program

Write = Callable[[str, str], Path]
Debugs = Callable[..., AbstractContextManager[ptys.Person]]
PDB, REPL = b"(Pdb) ", b">>> "

SCRIPT = """
import time
app = minimodal.App("debugged")

@app.function(timeout=2, startup_timeout=60)
def square(x: int) -> int:
    factor = x
    breakpoint()
    found = x * factor
    return found

@app.function()
async def awaited(x: int) -> int:
    import pdb
    pdb.set_trace()
    return x + 1

@app.function()
def speaks(x: int) -> int:
    print("spoken", x)
    return x

@app.cls()
class Model:
    @minimodal.enter()
    def prepare(self) -> None:
        self.value = 20
        breakpoint()
        print("value", self.value)

    @minimodal.method()
    def get(self) -> int:
        return self.value

@app.function(max_containers=2)
def asks(name: str) -> str:
    minimodal.interact()
    return name + " " + input(f"What does {name} say? ")

@app.local_entrypoint()
def both() -> None:
    print("answers:", sorted(asks.map(["a", "b"])))

@app.local_entrypoint()
def main(x: int = 7) -> None:
    print("the result is", square.remote(x))

@app.local_entrypoint()
def quiet_meanwhile() -> None:
    import threading
    other = threading.Thread(target=lambda: [speaks.remote(n) for n in range(3)])
    call = square.spawn(5)
    other.start()
    other.join()
    print("the result is", call.get())
"""


@pytest.fixture
def debugs(script: Write) -> Debugs:
    """A person at the terminal of `run -i` of one of the functions above."""
    path = script("debugged.py", SCRIPT)

    def debug(
        function: str, *arguments: str, backend: str = "process"
    ) -> AbstractContextManager[ptys.Person]:
        reference = f"{path}::{function}"
        return ptys.program("run", "-i", reference, *arguments, MINIMODAL_BACKEND=backend)

    return debug


def test_breakpoint_has_the_terminal_and_time_stands_still(backend: str, debugs: Debugs) -> None:
    """The function's timeout is 2 s; the person takes longer."""
    with debugs("main", backend=backend) as person:
        shown = person.answers(PDB, b"p ('size', *__import__('os').get_terminal_size())\r")
        assert b"the terminal is with square (fc-" in shown
        assert b"found = x * factor" in shown
        person.expects(b"('size', 99, 33)")
        person.answers(PDB, b"import time; time.sleep(2.5); print('sl' + 'ept')\r")
        person.expects(b"slept\r\n")
        person.answers(PDB, b"print('go' + 'ing'); time.sleep(60)\r")
        person.answers(b"going", b"\x03")
        person.expects(b"KeyboardInterrupt")
        person.answers(PDB, b"!factor = 6\r")
        person.answers(PDB, b"n\r")
        person.expects(b"return found")
        person.answers(PDB, b"p found\r")
        person.expects(b"42")
        person.answers(PDB, b"c\r")
        person.expects(b"the result is 42")
        assert person.waits() == 0


def test_pdb_in_an_async_function_and_quit(backend: str, debugs: Debugs) -> None:
    with debugs("awaited", "--x", "1", backend=backend) as person:
        person.answers(PDB, b"q\r")
        assert person.waits() == 1
        assert b"BdbQuit" in person.seen


def test_in_enter(debugs: Debugs) -> None:
    with debugs("Model.get") as person:
        person.answers(PDB, b"self.value = 21\r")
        person.answers(PDB, b"c\r")
        person.expects(b"value 21")
        assert person.waits() == 0


IMPORTED = """
app = minimodal.App("imported")
if not minimodal.is_local():
    word = "import"
    breakpoint()

@app.function()
def says() -> str:
    import code
    minimodal.interact()
    code.interact(banner="a REPL", local={"word": word})
    return word
"""


def test_at_import_and_a_repl(backend: str, script: Write) -> None:
    path = script("imported.py", IMPORTED)
    with ptys.program("run", "-i", f"{path}::says", MINIMODAL_BACKEND=backend) as person:
        person.answers(PDB, b"word = 'changed'\r")
        person.answers(PDB, b"c\r")
        person.expects(b"a REPL")
        person.answers(REPL, b"print(word, 6 * 7)\r")
        person.expects(b"changed 42")
        person.answers(REPL, b"\x04")
        assert person.waits() == 0


def test_one_at_a_time(backend: str, debugs: Debugs) -> None:
    with debugs("both", backend=backend) as person:
        first = person.answers(b"say? ", b"hello\r")
        second = person.answers(b"say? ", b"bye\r")
        assert [each.count(b"the terminal is with") for each in (first, second)] == [1, 1]
        person.expects(b"answers: [")
        assert person.waits() == 0
        assert person.seen.count(b"What does") == 2


def test_other_output_waits(debugs: Debugs) -> None:
    with debugs("quiet_meanwhile") as person:
        person.answers(PDB, b"import time; time.sleep(1); print('a while ' + 'later')\r")
        shown = person.expects(b"a while later")
        person.answers(PDB, b"c\r")
        person.expects(b"the result is 25")
        assert person.waits() == 0
        assert b"spoken" not in shown
        assert person.seen.count(b"spoken") == 3


def test_pasted_lines_that_nobody_reads_hold_nothing_up(debugs: Debugs) -> None:
    """More than the terminal of the container takes in."""
    with debugs("main") as person:
        person.answers(PDB, b"__import__('time').sleep(0.5)\rc\r" + b"x = 1\r" * 3000)
        person.expects(b"the result is 49")
        assert person.waits() == 0


def test_a_process_that_dies_gives_the_terminal_back(debugs: Debugs) -> None:
    """The call was lost with its process, so it is run again, and asks again."""
    with debugs("main") as person:
        person.answers(PDB, b"import os; os.kill(os.getpid(), 9)\r")
        person.expects(b"the terminal is with")
        person.answers(PDB, b"c\r")
        person.expects(b"the result is 49")
        assert person.waits() == 0
        assert person.seen.count(b"the terminal is with") == 2


def test_the_run_can_be_ended_while_a_container_has_the_terminal(debugs: Debugs) -> None:
    with debugs("main") as person:
        person.answers(PDB, b"\x1c")
        person.expects(b"stopping")
        assert person.waits() == 130


@pytest.mark.parametrize("function", ["square", "awaited", "Model.get", "asks"])
def test_without_i_the_error_names_it(program: Program, script: Write, function: str) -> None:
    script("debugged.py", SCRIPT)
    arguments = {"asks": ["--name", "a"], "Model.get": []}.get(function, ["--x", "1"])
    result = program("run", f"debugged.py::{function}", *arguments)
    assert result.returncode == 1
    assert "minimodal run -i" in result.stderr


def test_i_needs_a_terminal(program: Program, script: Write) -> None:
    script("debugged.py", SCRIPT)
    result = program("run", "-i", "debugged.py::main")
    assert result.returncode == 2
    assert "here is none" in result.stderr
