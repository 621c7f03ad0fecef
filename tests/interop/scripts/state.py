import io
import os
import queue

import modal

app = modal.App("state", secrets=[modal.Secret.from_dict({"APP_KEY": "from-app", "NONE": None})])
vol = modal.Volume.from_name("interop-volume", create_if_missing=True)
table = modal.Dict.from_name("interop-dict", create_if_missing=True)


@app.function(secrets=[modal.Secret.from_dict({"OWN": "x"})], env={"PLAIN": "y"})
def secrets():
    return [os.environ["APP_KEY"], os.environ["OWN"], os.environ["PLAIN"], "NONE" in os.environ]


@app.function()
def producer(q: modal.Queue, n: int):
    q.put_many(list(range(n)))
    q.put("other", partition="b")
    table["produced"] = n
    return table.put("lock", 1, skip_if_exists=True)


@app.local_entrypoint()
def main():
    print("secrets", secrets.remote())
    with modal.Queue.ephemeral() as q:
        print("lock", producer.remote(q, 3), table.put("lock", 2, skip_if_exists=True))
        print("queue", q.get(), q.get_many(2), q.get(block=False), q.len(partition="b"))
        try:
            q.get(timeout=0.01)
        except queue.Empty:
            print("empty", q.len(total=True))
    print("dict", table["produced"], "missing" in table, table.get("missing", "default"))
    table.pop("lock")
    with vol.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(b"hello"), "/dir/a.txt")
        batch.put_file(__file__, "state.py")
    print("volume", sorted(e.path for e in vol.listdir("/", recursive=True)))
    print("read", b"".join(vol.read_file("dir/a.txt")))
    try:
        vol.remove_file("nowhere")
    except FileNotFoundError:
        print("no such file")
    modal.Dict.objects.delete("interop-dict")
    modal.Volume.objects.delete("interop-volume")
