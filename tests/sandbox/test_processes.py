"""`exec`: streams in both directions, exit codes, time limits, terminals."""

from __future__ import annotations

import pytest

from minimodal import Sandbox, StreamType
from minimodal.errors import InvalidError, NotFoundError
from minimodal.host import Host
from minimodal.sandbox_process import ContainerProcess


def test_streams_and_exit_code(box: Sandbox) -> None:
    process = box.exec("sh", "-c", "echo out; echo err >&2; exit 7")
    with pytest.raises(InvalidError, match="wait"):
        _ = process.returncode
    assert (process.stdout.read(), process.stderr.read()) == ("out\n", "err\n")
    assert (process.wait(), process.poll(), process.returncode) == (7, 7, 7)
    assert process.stdout.read() == ""


def test_a_process_talks_both_ways(box: Sandbox) -> None:
    script = "import sys\nfor line in sys.stdin: print('got', line.strip(), flush=True)"
    process = box.exec("python3", "-c", script, bufsize=1)
    assert process.poll() is None
    lines = iter(process.stdout)
    for word in ("one", "two"):
        process.stdin.write(f"{word}\n")
        process.stdin.drain()
        assert next(lines) == f"got {word}\n"
    process.stdin.write_eof()
    process.stdin.drain()
    assert (list(lines), process.wait()) == ([], 0)


def test_nothing_is_lost_of_much_output_or_input(box: Sandbox) -> None:
    total = 3_000_000
    script = "import sys; sys.stdout.buffer.write(b'x' * int(sys.argv[1]))"
    process = box.exec("python3", "-c", script, str(total), text=False)
    assert sum(len(part) for part in process.stdout) == total
    count = box.exec("wc", "-c")
    for _ in range(3):
        count.stdin.write(b"y" * 1_000_000)
        count.stdin.drain()
    count.stdin.write_eof()
    count.stdin.drain()
    assert count.stdout.read().strip() == "3000000"


def test_a_slow_reader_holds_the_process_up(box: Sandbox, host: Host) -> None:
    """The engine keeps 256 KiB of a stream, however much is written."""
    script = "import sys\nsys.stderr.write('.'); sys.stderr.flush()\nwhile 1: sys.stdout.write('x' * 65536)"
    process = box.exec("python3", "-c", script, timeout=3)
    part = next(iter(process.stdout))
    run = host.engine.sandboxes._runs[box.object_id]
    kept = run.processes[process.object_id].outputs[1]
    assert process.wait() == -1
    assert len(part) <= 1 << 20
    assert len(kept._unread) <= 2 * 256 * 1024


def test_characters_and_lines_that_come_in_pieces(box: Sandbox) -> None:
    script = (
        "import sys\nfor byte in 'aé\\nß€\\nlast'.encode():\n"
        "    sys.stdout.buffer.write(bytes([byte])); sys.stdout.buffer.flush()\n"
    )
    assert list(box.exec("python3", "-c", script, bufsize=1).stdout) == ["aé\n", "ß€\n", "last"]
    assert "".join(box.exec("python3", "-c", script).stdout) == "aé\nß€\nlast"
    assert b"".join(box.exec("python3", "-c", script, text=False).stdout) == "aé\nß€\nlast".encode()
    broken = box.exec("python3", "-c", "import sys; sys.stdout.buffer.write(b'a\\xffb\\xc3')")
    assert broken.stdout.read() == "a\\xffb\\xc3"


def test_a_time_limit_ends_the_process_and_what_it_started(box: Sandbox) -> None:
    process = box.exec("sh", "-c", "echo begun; sleep 600 | cat", timeout=1)
    assert (process.wait(), process.stdout.read()) == (-1, "begun\n")
    count = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 600[ ]'"
    assert box.exec("sh", "-c", count).stdout.read().strip() in ("0", "1")  # its own command line


def test_a_signal_shows_in_the_exit_code(box: Sandbox) -> None:
    assert box.exec("sh", "-c", "kill -9 $$").wait() == 137


def test_a_program_that_is_not_there(box: Sandbox) -> None:
    assert box.exec("no-such-program").wait() in (126, 127)


def test_a_process_left_behind_does_not_hold_up_the_end() -> None:
    box = Sandbox.create("sh", "-c", "sleep 600 & echo done")
    box.wait()
    assert (box.returncode, box.stdout.read()) == (0, "done\n")


def test_output_that_nobody_wants(box: Sandbox) -> None:
    script = "print('x' * 2_000_000)"
    process = box.exec("python3", "-c", script, stdout=StreamType.DEVNULL)
    assert (process.wait(), process.stdout.read()) == (0, "")


def test_output_among_the_logs(box: Sandbox, host: Host) -> None:
    seen: list[tuple[str, str]] = []
    host.subscribe(lambda e: seen.append((e.name, e.fields["text"])) if e.kind == "log" else None)
    process = box.exec("sh", "-c", "echo to the log", stdout=StreamType.STDOUT)
    assert (process.wait(), process.stdout.read()) == (0, "")
    assert (box.object_id, "to the log") in seen


def test_a_terminal(box: Sandbox) -> None:
    process = box.exec(
        "sh", "-c", "tty >/dev/null && read line && stty size && echo $line", pty=True
    )
    process.stdin.resize(11, 22)
    process.stdin.write("typed\n")
    process.stdin.drain()
    assert process.stdout.read().splitlines() == ["typed", "11 22", "typed"]
    assert process.wait() == 0


def test_input_after_its_end(box: Sandbox) -> None:
    process = box.exec("true")
    assert process.wait() == 0
    process.stdin.write("x" * 100_000)
    with pytest.raises(ValueError, match="stdin is closed"):
        process.stdin.drain()
    closed = box.exec("cat")
    closed.stdin.write_eof()
    with pytest.raises(ValueError, match="write_eof"):
        closed.stdin.write("more")
    closed.stdin.drain()
    closed.stdin.drain()
    assert closed.wait() == 0


def test_wrong_arguments(box: Sandbox) -> None:
    with pytest.raises(InvalidError, match="needs a program"):
        box.exec()
    with pytest.raises(InvalidError, match="bufsize"):
        box.exec("ls", bufsize=100)
    with pytest.raises(InvalidError, match="text=True"):
        box.exec("ls", bufsize=1, text=False)
    with pytest.raises(InvalidError, match="StreamType"):
        box.exec("ls", stdout="there")
    with pytest.raises(InvalidError, match="above 0"):
        box.exec("ls", timeout=0)
    with pytest.raises(NotFoundError, match="no process ex-never"):
        ContainerProcess(box.object_id, "ex-never").wait()
    process = box.exec("cat")
    with pytest.raises(TypeError, match="not int"):
        process.stdin.write(1)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(BufferError):
        process.stdin.write(b"x" * (3 << 20))
    with pytest.raises(InvalidError, match="no pty"):
        process.stdin.resize(1, 1)
    process.stdin.write_eof()
    process.stdin.drain()
