import sys

import modal

app = modal.App("example-get-started")


@app.function(nonpreemptible=True, enable_memory_snapshot=True, experimental_options={"x": 1})
def square(x: int) -> int:
    """Prints to both streams."""
    print("in a container", x)
    if x % 2:
        print(f"odd {x}", file=sys.stderr)
    return x**2


@app.local_entrypoint()
def main(n: int = 42, times: int = 20):
    assert modal.is_local()
    print("local", square.local(n))
    print("remote", square.remote(n))
    total = 0
    for result in square.map(range(times)):
        total += result
    print("parallel", total)
    print("starmap", list(add.starmap([(1, 2), (3, 4)])))
    print("kwargs", list(add.map([1, 2], kwargs={"y": 10})))
    print("exceptions", [type(r).__name__ for r in fail.map([1, 0], return_exceptions=True)])
    add.for_each([1], [2])


@app.function()
def add(x, y):
    assert not modal.is_local()
    return x + y


@app.function(retries=modal.Retries(max_retries=1, backoff_coefficient=1.0, initial_delay=0.0))
def fail(x):
    return 1 / x
