"""Scripts as people write them for Modal, of many styles, run with the import changed and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import minimodal
from minimodal.compat import ABSENT, ABSENT_METHODS, GONE, REFUSED, RENAMED, SAFE
from minimodal.errors import InvalidError
from tests.cli.conftest import Program

SCRIPTS = Path(__file__).parent / "scripts"

SAID = {
    "get_started": [
        "in a container 42",  # by .local()
        "local 1764",
        "remote 1764",
        "parallel 2470",
        "starmap [3, 7]",
        "kwargs [11, 12]",
        "exceptions ['float', 'ZeroDivisionError']",
    ],
    "lifecycle": [
        "Hola ana xx | Hola bo yyy",
        "history ['base', 'child']",
        "stream [(0, 'ANA'), (1, 'ANA')]",
        "map ['Hola ana aa', 'Hola ana bb']",
        "counter 11 16",
        "batched [1, 2, 3]",
        "variant 2",
    ],
    "jobs": [
        "again True",
        "gather [0, 2, 4]",
        "not yet",
        "cancelled CallCancelled",
        "timed out True",
        "not found",
        "nested 12",
        "stats 0",
    ],
    "state": [
        "secrets ['from-app', 'x', 'y', False]",
        "lock True False",
        "queue 0 [1, 2] None 1",
        "empty 1",
        "dict 3 False default",
        "volume ['dir', 'dir/a.txt', 'state.py']",
        "read b'hello'",
        "no such file",
    ],
    "asynchronous": [
        "remote 42 hi",
        "map [0, 2, 4]",
        "stream [0, 1] after the items",
        "spawn 8",
        "gather [0, 2, 4, 6, 8]",
        "dict v",
    ],
    "web": [
        "asgi {'path': '/a/b', 'q': 'c=1'}",
        "wsgi b'wsgi /x'",
        "server True",
        "refused True",
    ],
    "servers": ["server True", "older True", "private 401", "queue True"],
    "deployed": ["deployed 42", "variant 2", "cls hi you", "from inside 10"],
    "sandboxes": [
        "exec out err 3 3",
        "stdin to stdin",
        "lines ['a\\n', 'b\\n']",
        "tags {'kind': 'test'} None",
        "file text",
        "terminated",
    ],
    "images": ["image ('XIV', '3', 'X', ['a.txt', 'keep.tmp'])", "other no roman here"],
}


def ported(text: str) -> str:
    """The only change: `import modal` becomes `import minimodal as modal`."""
    text = re.sub(r"^import modal\.(\w+)$", r"import minimodal.\1", text, flags=re.M)
    text = re.sub(r"^from modal\.", "from minimodal.", text, flags=re.M)
    return re.sub(r"^import modal$", "import minimodal as modal", text, flags=re.M)


@pytest.mark.parametrize("name", SAID)
def test_a_script_for_modal_runs(program: Program, place: Path, name: str) -> None:
    script = place / f"{name}.py"
    script.write_text(ported((SCRIPTS / f"{name}.py").read_text()))
    (place / "helper.py").write_text("def shout(text):\n    return text.upper()\n")
    (place / "data").mkdir()
    for file in ("a.txt", "b.tmp", "keep.tmp"):
        (place / "data" / file).write_text(file)
    backend = "bubblewrap" if name in BUBBLEWRAP else "process"
    result = program("run", "-q", script.name, MINIMODAL_BACKEND=backend)
    assert result.returncode == 0, result.stderr
    from_functions = re.compile(r"[\w.]+ \| (in a container|bye|Serving)")
    said = [line for line in result.stdout.splitlines() if not from_functions.match(line)]
    assert said == SAID[name], result.stderr


BUBBLEWRAP = {"images"}  # mounts at absolute paths


@pytest.mark.parametrize("name", [*SAID, "refused"])
def test_the_scripts_know_nothing_of_us(name: str) -> None:
    path = SCRIPTS / f"{name}.py"
    assert name == "refused" or "minimodal" not in path.read_text()


def run_with(program: Program, place: Path, option: str, **environ: str) -> tuple[int, str]:
    (place / "one.py").write_text(
        "import minimodal as modal\napp = modal.App('one')\n"
        f"@app.function({option})\ndef f():\n    print('ran')\n"
    )
    result = program("run", "one.py", **environ)
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("name", REFUSED)
def test_what_one_machine_cannot_honour_is_refused(name: str) -> None:
    app = minimodal.App()
    with pytest.raises(InvalidError) as caught:
        app.function(**{name: "x"})(run_with)
    assert f"@app.function: {name}='x' makes no sense on one machine: " in str(caught.value)
    assert REFUSED[name] in str(caught.value)
    app.function(**{name: None})(run_with)


def test_the_refusal_names_the_line_and_the_way_out(program: Program, place: Path) -> None:
    code, said = run_with(program, place, "region='us-east'")
    assert code == 1
    assert "MINIMODAL_COMPAT=ignore" in said
    assert "one.py:3" in said


def test_what_is_refused_can_be_ignored(program: Program, place: Path) -> None:
    options = ", ".join([f"{name}='x'" for name in REFUSED] + [f"{name}=True" for name in SAFE])
    code, said = run_with(program, place, options, MINIMODAL_COMPAT="ignore")
    assert (code, "f | ran" in said) == (0, True), said


def test_a_gpu_that_is_not_there_is_an_error_or_the_cpu(
    program: Program, place: Path, backend: str
) -> None:
    code, said = run_with(program, place, "gpu='A100:2'", MINIMODAL_BACKEND=backend)
    assert code == 1
    assert "f can never run here: it asks for gpu='A100:2'" in said
    assert "MINIMODAL_GPU=ignore" in said
    changes = {"MINIMODAL_BACKEND": backend, "MINIMODAL_GPU": "ignore"}
    code, said = run_with(program, place, "gpu='A100:2'", **changes)
    assert (code, "f | ran" in said) == (0, True), said


@pytest.mark.parametrize("option", ["gpu=1", "gpu=''", "gpu='A100:many'", "gpu=[]"])
def test_a_gpu_that_is_no_gpu(program: Program, place: Path, option: str) -> None:
    code, said = run_with(program, place, option)
    assert code == 1
    assert 'gpu must be a text such as "any" or "A100:2"' in said


def test_a_build_step_with_a_gpu_is_refused_or_run_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = minimodal.Image.debian_slim()
    monkeypatch.delenv("MINIMODAL_GPU", raising=False)
    for step in (
        lambda: image.run_commands("true", gpu="any"),
        lambda: image.pip_install("x", gpu="A100"),
        lambda: image.run_function(place_of, gpu=["T4", "any"], cpu=4, memory=1024),
        lambda: minimodal.Image.from_dockerfile("Dockerfile", gpu="any"),
    ):
        with pytest.raises(InvalidError, match="MINIMODAL_GPU=ignore to run the step on the CPU"):
            step()
        with monkeypatch.context() as patch:
            patch.setenv("MINIMODAL_GPU", "ignore")
            step()


def place_of() -> None: ...


@pytest.mark.parametrize("name", RENAMED)
def test_options_that_modal_has_removed_say_what_to_write(name: str) -> None:
    given: dict[str, object] = {name: 1}
    with pytest.raises(InvalidError, match=f"no option '{name}': write ") as caught:
        minimodal.App().function(**given)  # type: ignore[arg-type]  # the mistake is the point
    assert RENAMED[name] in str(caught.value)


def test_a_server_that_cannot_serve() -> None:
    serving = minimodal.App().server(port=1)
    with pytest.raises(InvalidError, match="Idle needs an @enter that starts its server"):
        serving(type("Idle", (), {}))
    with pytest.raises(InvalidError, match=r"decorates a class, not"):
        serving(place_of)  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="reached by HTTP alone"):
        serving(type("Both", (), {"f": minimodal.method()(place_of)}))
    with pytest.raises(InvalidError, match="there is one machine"):
        minimodal.experimental.clustered(2)


def test_names_that_cannot_be_here_are_imported_and_refused_when_used() -> None:
    uses: list[Callable[[object], object]] = [
        lambda thing: thing("x"),  # type: ignore[operator]
        lambda thing: thing.from_name("x"),  # type: ignore[attr-defined]
    ]
    for name, why in ABSENT.items():
        for use in uses:
            with pytest.raises(InvalidError, match=re.escape(why)):
                use(getattr(minimodal, name))
    for name, why in ABSENT_METHODS.items():
        owner, _, method = name.partition(".")
        with pytest.raises(InvalidError, match=re.escape(f"minimodal has no {name}: {why}")):
            getattr(getattr(minimodal, owner), method)("x")


@pytest.mark.parametrize("name", GONE)
def test_names_that_modal_has_removed_say_what_to_write(name: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(f"write minimodal.{GONE[name]}")):
        getattr(minimodal, name)
    assert not hasattr(minimodal, "nonsense")


def test_modals_exceptions_can_be_imported_and_caught() -> None:
    from minimodal import exception

    names = (
        "AlreadyExistsError AsyncUsageWarning AuthError ClientClosed ConflictError DeprecationError "
        "DeserializationError Error ExecTimeoutError ExecutionError FunctionTimeoutError "
        "ImageBuildError InputCancellation InternalError InvalidError NotFoundError "
        "OutputExpiredError PendingDeprecationError RemoteError ResourceExhaustedError "
        "SandboxTerminatedError SandboxTimeoutError SerializationError ServerWarning TimeoutError"
    ).split()
    assert [name for name in names if not issubclass(getattr(exception, name), BaseException)] == []
    assert issubclass(exception.ExecTimeoutError, exception.TimeoutError)
