import modal
from modal.container_process import ContainerProcess
from modal.stream_type import StreamType

app = modal.App.lookup("interop-sandboxes", create_if_missing=True)


def main():
    sb = modal.Sandbox.create(app=app, timeout=60, tags={"kind": "test"})
    p: ContainerProcess = sb.exec("sh", "-c", "echo out; echo err >&2; exit 3")
    print("exec", p.stdout.read().strip(), p.stderr.read().strip(), p.wait(), p.returncode)
    cat = sb.exec("cat", stdout=StreamType.PIPE)
    cat.stdin.write("to stdin")
    cat.stdin.write_eof()
    cat.stdin.drain()
    print("stdin", cat.stdout.read())
    print("lines", [line for line in sb.exec("printf", "a\\nb\\n", bufsize=1).stdout])
    print("tags", sb.get_tags(), sb.poll())
    with sb.open("/tmp/f.txt", "w") as f:
        f.write("text")
    print("file", sb.exec("cat", "/tmp/f.txt").stdout.read())
    found = modal.Sandbox.from_id(sb.object_id)
    sb.terminate()
    try:
        found.wait()
    except modal.exception.SandboxTerminatedError:
        print("terminated")


if __name__ == "__main__":
    main()
