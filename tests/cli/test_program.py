"""The program from outside: what goes to which stream, and the exit code of every ending."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import minimodal
from tests.cli.conftest import Program, environment, started

Write = Callable[[str, str], Path]

HELLO = """
app = minimodal.App("hello")

@app.function()
def square(x: int) -> int:
    print(f"squaring {x}")
    return x * x

@app.local_entrypoint()
def main(x: int = 7) -> None:
    print(f"{x} squared is {square.remote(x)}")
"""


def test_version_names_python_and_the_files(program: Program) -> None:
    result = program("--version")
    assert result.returncode == 0
    assert result.stdout.startswith(f"minimodal {minimodal.__version__} (Python ")
    assert str(Path(minimodal.__file__).parent) in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("option", ["--help", "-h", "help"])
def test_help_lists_commands_and_exit_codes(program: Program, option: str) -> None:
    result = program(option)
    assert result.returncode == 0
    for word in ("run ", "doctor ", "exit codes", "130", "example:"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "minimodal --help"),
        (["rnu"], "try: minimodal run"),
        (["docter"], "try: minimodal doctor"),
        (["xyzzy"], "config"),
        (["hello.py"], "try: minimodal run hello.py"),
        (["--colour"], "there is no option --colour"),
        (["--color", "maybe", "run"], "always"),
        (["run"], "needs a script"),
        (["run", "--bakend", "process", "hello.py"], "try: --backend"),
        (["run", "nowhere.py"], "there is no file nowhere.py"),
        (["run", "helo.py"], "try: minimodal run hello.py"),
        (["run", "hello.py:main"], "try: minimodal run hello.py::main"),
        (["run", "hello.py::squre"], "try: minimodal run hello.py::square"),
        (["run", "hello.py", "--y", "1"], "there is no option --y"),
        (["run", "hello.py", "--x", "many"], "'many' is not a whole number"),
        (["run", "hello.py::square"], "required: --x"),
        (["run", "--backend", "podman", "hello.py"], "one of auto, docker, bubblewrap, process"),
        (["run", "-m", "hello.py"], "without -m: hello.py"),
        (["run", "-m", "nowhere"], "there is no module 'nowhere'"),
    ],
)
def test_f107_a_wrong_command_line_is_2_with_a_way_out(
    program: Program, script: Write, arguments: list[str], hint: str
) -> None:
    script("hello.py", HELLO)
    result = program(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert hint in result.stderr
    assert "Traceback" not in result.stderr


MISTAKES = """
app = minimodal.App("mistakes")

@app.function()
def f(x: int) -> int:
    import no_such_package
    return x

@app.local_entrypoint()
def main() -> None:
    f.map([1, 2])
    f.remote(1)
"""


def test_what_nobody_iterated_and_what_an_image_lacks_is_said(
    program: Program, script: Write
) -> None:
    script("mistakes.py", MISTAKES)
    result = program("run", "-q", "mistakes.py")
    assert result.returncode == 1
    assert "f.map() was never iterated, so nothing ran" in result.stderr
    assert "'no_such_package' is not in the image of f" in result.stderr
    assert "Image.uv_pip_install('no_such_package')" in result.stderr


APPS = """
one, two = minimodal.App("one"), minimodal.App("two")

@one.function()
def f(): ...

@two.function()
def g(): ...
"""


ENDPOINTS = """
app = minimodal.App("pages")

@app.function()
@minimodal.wsgi_app()
def page(): ...

@app.cls()
class Shop:
    @minimodal.web_server(8000)
    def serve(self): ...
"""


DECORATED = "bad.py:5" if sys.version_info >= (3, 11) else "bad.py:6"  # as Python counts the line


def test_an_endpoint_is_not_run_and_no_choice_beside_a_function(
    program: Program, script: Write
) -> None:
    script("pages.py", ENDPOINTS + "@app.function()\ndef f():\n    print('ran')\n")
    result = program("run", "-q", "pages.py")
    assert (result.returncode, result.stdout) == (0, "f | ran\n"), result.stderr
    for name in ("page", "Shop.serve"):
        result = program("run", f"pages.py::{name}")
        assert result.returncode == 1
        assert f"{name} is a web endpoint" in result.stderr
        assert "minimodal serve" in result.stderr


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("def f(:\n", ["bad.py", "line 2", "SyntaxError"]),
        ("x = 1\n", ["bad.py defines no App", "minimodal.App("]),
        ("app = minimodal.App()\n", ["nothing to run", "@app.local_entrypoint()"]),
        (APPS, ["several functions", "minimodal run bad.py::f", "minimodal run bad.py::g"]),
        (ENDPOINTS, ["bad.py has web endpoints alone", "minimodal serve bad.py"]),
        (HELLO.replace("main(x: int = 7)", "main(x: dict)"), ["annotation of 'x'", "dict"]),
        (HELLO.replace("main(x: int = 7)", "main(**x)"), ["main(**x)"]),
        (HELLO.replace("function()", "function"), ["needs parentheses", "at:", DECORATED]),
        ("from .other import x\n", ["bad.py uses relative imports", "is no package"]),
    ],
)
def test_f107_a_wrong_script_is_1_before_anything_starts(
    program: Program, script: Write, text: str, parts: list[str]
) -> None:
    script("bad.py", text)
    result = program("run", "bad.py")
    assert result.returncode == 1
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr
    assert "minimodal/cli" not in result.stderr


def test_an_entrypoint_runs_here_and_its_function_in_a_container(
    program: Program, script: Write
) -> None:
    script("hello.py", HELLO)
    result = program("run", "hello.py", "--x", "3")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["square | squaring 3", "3 squared is 9"]
    assert "Created hello: square" in result.stderr
    assert re.search(r"Completed in [^:]+: 1 call, 1 container, \S+ ms of work", result.stderr)


def test_quiet_leaves_only_what_the_code_prints(program: Program, script: Write) -> None:
    script("hello.py", HELLO)
    result = program("run", "-q", "hello.py")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["square | squaring 7", "7 squared is 49"]


def test_the_help_of_a_script_starts_no_engine(program: Program, script: Write) -> None:
    script("hello.py", HELLO)
    result = program("run", "hello.py", "--help", MINIMODAL_HOME="/dev/null/nowhere")
    assert result.returncode == 0
    assert "--x INT" in result.stdout
    assert "default: 7" in result.stdout


def test_a_function_is_run_directly_and_its_result_written(
    program: Program, script: Write, place: Path
) -> None:
    script("f.py", "app = minimodal.App()\n@app.function()\ndef f(n: int): return 'é' * n\n")
    result = program("run", "-w", "out.txt", "f.py::app.f", "--n", "3")
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert (place / "out.txt").read_text() == "ééé"


@pytest.mark.parametrize(
    ("body", "message"),
    [("return 3", "returned int"), ("yield 3", "is a generator")],
)
def test_what_cannot_be_written_or_run_is_said(
    program: Program, script: Write, body: str, message: str
) -> None:
    script("f.py", f"app = minimodal.App()\n@app.function()\ndef f(): {body}\n")
    result = program("run", "-w", "out.txt", "f.py")
    assert result.returncode == 1
    assert message in result.stderr


def test_a_module_of_a_package_is_run(program: Program, script: Write) -> None:
    script("pkg/__init__.py", "")
    script("pkg/words.py", "word = 'inside'")
    script("pkg/job.py", "from .words import word\n" + HELLO.replace("squaring", "{word}"))
    for reference in (["-m", "pkg.job"], ["pkg/job.py"]):
        result = program("run", *reference)
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[0] == "square | inside 7"


def test_an_async_entrypoint(program: Program, script: Write) -> None:
    text = "async def main() -> None:\n    print(await square.remote.aio(4))\n"
    script("a.py", HELLO.partition("def main")[0] + text)
    result = program("run", "-q", "a.py")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "16"


def test_an_async_entrypoint_that_raises_shows_no_frame_of_an_event_loop(
    program: Program, script: Write
) -> None:
    text = "async def main() -> None:\n    raise ValueError('no luck')\n"
    path = script("a.py", HELLO.partition("def main")[0] + text)
    result = program("run", "-q", "a.py")
    assert result.returncode == 1
    frames = [line for line in result.stderr.splitlines() if line.startswith("  File")]
    assert len(frames) == 1
    assert f"{path}" in frames[0]


def test_a_script_with_a_main_block_is_run_as_a_program(program: Program, script: Write) -> None:
    text = """
import sys
app = minimodal.App("p")

@app.function()
def f(x):
    print("in f")
    return x + 1

if __name__ == "__main__":
    print(f.remote(1), sys.argv[1:], __name__)
"""
    path = script("p.py", text)
    hosted = program("run", "-q", "p.py", "--any", "thing")
    assert hosted.returncode == 0, hosted.stderr
    assert hosted.stdout.splitlines() == [
        "p | in f".replace("p |", "f |"),
        "2 ['--any', 'thing'] __main__",
    ]
    alone = subprocess.run(
        [sys.executable, str(path)], env=environment({}), capture_output=True, text=True, check=True
    )
    assert alone.stdout.splitlines()[-1] == "2 [] __main__"


def test_a_script_may_call_a_function_while_it_is_imported(program: Program, script: Write) -> None:
    text = HELLO.replace(
        "@app.local", "early = minimodal.is_local() and square.remote(2)\n\n@app.local", 1
    )
    script("e.py", text.replace("{x} squared", "{early} {x} squared"))
    result = program("run", "-q", "e.py")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "square | squaring 2"
    assert result.stdout.splitlines()[-1] == "4 7 squared is 49"


def test_detached_calls_are_waited_for(program: Program, script: Write) -> None:
    text = """
import time
app = minimodal.App()

@app.function()
def slow(n):
    time.sleep(0.3)
    print("ended", n)

@app.local_entrypoint()
def main():
    slow.spawn(1)
"""
    script("d.py", text)
    attached, detached = program("run", "-q", "d.py"), program("run", "-q", "-d", "d.py")
    assert (attached.returncode, attached.stdout) == (0, "")
    assert (detached.returncode, detached.stdout) == (0, "slow | ended 1\n")


def failing(where: str) -> str:
    return f"""
app = minimodal.App()

def deeper(x):
    return x / 0

@app.function()
def f(x):
    return deeper(x)

@app.local_entrypoint()
def main():
    {where}
"""


@pytest.mark.parametrize("where", ["deeper(1)", "f.remote(1)"])
def test_a_users_exception_is_1_with_a_traceback_of_the_users_frames(
    program: Program, script: Write, where: str
) -> None:
    script("e.py", failing(where))
    result = program("run", "-q", "e.py")
    assert result.returncode == 1
    assert "in main" in result.stderr
    assert "in deeper" in result.stderr
    assert result.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "minimodal/" not in result.stderr


def test_debug_shows_all_frames(program: Program, script: Write) -> None:
    script("e.py", failing("f.remote(1)"))
    result = program("--debug", "run", "-q", "e.py")
    assert result.returncode == 1
    assert "minimodal/cli/run.py" in result.stderr


@pytest.mark.parametrize(
    ("statement", "code", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('no luck')", 1, "no luck"),
    ],
)
def test_the_entrypoints_own_exit_is_the_programs(
    program: Program, script: Write, statement: str, code: int, said: str
) -> None:
    script("x.py", failing(statement))
    result = program("run", "-q", "x.py")
    assert result.returncode == code
    assert result.stderr.strip() == said


def test_a_wrong_setting_is_2_and_names_its_origin(program: Program, script: Write) -> None:
    script("hello.py", HELLO)
    result = program("run", "hello.py", MINIMODAL_BACKEND="dokcer")
    assert result.returncode == 2
    assert "MINIMODAL_BACKEND" in result.stderr


def test_an_unknown_variable_is_said_and_ignored(program: Program, script: Write) -> None:
    script("hello.py", HELLO)
    result = program("run", "-q", "hello.py", MINIMODAL_BACKND="x")
    assert result.returncode == 0
    assert "Did you mean MINIMODAL_BACKEND" in result.stderr


def test_a_home_that_cannot_be_used_is_said(program: Program, script: Write) -> None:
    script("hello.py", HELLO)
    result = program("run", "hello.py", MINIMODAL_HOME="/dev/null/nowhere")
    assert result.returncode == 1
    assert "MINIMODAL_HOME" in result.stderr
    assert "Traceback" not in result.stderr


WAITING = """
import time
app = minimodal.App()

@app.function()
def wait():
    print("waiting", flush=True)
    time.sleep(600)

@app.local_entrypoint()
def main():
    wait.remote()
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "stopping (again to force)"),
        (signal.SIGTERM, 143, ""),
        (signal.SIGHUP, 129, ""),
    ],
)
def test_f32_f33_a_signal_stops_all_and_leaves_nothing(
    script: Write, number: int, code: int, said: str
) -> None:
    path = script("w.py", WAITING)
    with started(path) as process:
        assert process.stdout
        assert process.stdout.readline() == "wait | waiting\n"
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert (out, err.strip()) == ("", said)


LEAVING = """
import time
app = minimodal.App()

@app.cls()
class Waits:
    @minimodal.enter()
    def open(self):
        self.state = "opened"

    @minimodal.method()
    def wait(self):
        print("waiting", flush=True)
        time.sleep(600)

    @minimodal.exit()
    def close(self):
        print(f"{self.state} and closed")

@app.local_entrypoint()
def main():
    Waits().wait.remote()
"""


def test_exit_hooks_run_on_ctrl_c(script: Write) -> None:
    path = script("w.py", LEAVING)
    with started(path) as process:
        assert process.stdout
        assert process.stdout.readline() == "Waits | waiting\n"
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out == "Waits | opened and closed\n"


def test_f16_a_reader_that_goes_away_ends_it_quietly(script: Write) -> None:
    text = WAITING.replace('print("waiting", flush=True)', 'print("waiting\\n" * 100000)')
    path = script("w.py", text)
    with started(path) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) != 0
        assert process.stderr.read() == ""
