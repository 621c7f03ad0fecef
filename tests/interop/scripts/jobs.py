import time

import modal
from modal.exception import FunctionTimeoutError, NotFoundError
from modal.functions import FunctionCall

app = modal.App("jobs")


@app.function(timeout=30)
def slow_add(a, b, delay=0.0):
    time.sleep(delay)
    return a + b, modal.current_function_call_id(), modal.current_input_id()


@app.function(timeout=1, startup_timeout=30)
def forever():
    time.sleep(100)


@app.function()
def nested(n):
    return sum(value for value, _, _ in slow_add.map(range(n), range(n)))


def main():
    with app.run():
        call = slow_add.spawn(1, 2)
        value, call_id, input_id = call.get(timeout=20)
        assert call_id == call.object_id and call_id.startswith("fc-") and input_id
        again = FunctionCall.from_id(call.object_id)
        print("again", again.get()[0] == value == 3)
        calls = [slow_add.spawn(i, i) for i in range(3)]
        print("gather", [r[0] for r in FunctionCall.gather(*calls)])
        waiting = slow_add.spawn(1, 1, delay=60)
        try:
            waiting.get(timeout=0)
        except TimeoutError:
            print("not yet")
        waiting.cancel()
        try:
            waiting.get()
        except modal.exception.RemoteError as e:
            print("cancelled", type(e).__name__)
        try:
            forever.remote()
        except FunctionTimeoutError as e:
            print("timed out", isinstance(e, modal.exception.TimeoutError))
        try:
            modal.Function.from_name("no-such-app", "f").remote()
        except NotFoundError:
            print("not found")
        print("nested", nested.remote(4))
        stats = slow_add.get_current_stats()
        print("stats", stats.backlog)


if __name__ == "__main__":
    main()
