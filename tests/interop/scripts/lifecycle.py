from typing import Any

import modal

app = modal.App(name="lifecycle", tags={"team": "search"})
image = modal.Image.debian_slim().env({"GREETING": "Hola"})


class Base:
    @modal.enter()
    def load_base(self):
        self.events = ["base"]

    @modal.method()
    def history(self) -> list:
        return self.events


@app.cls(image=image, cpu=0.1, scaledown_window=60, max_containers=1)
@modal.concurrent(max_inputs=4)
class Model(Base):
    name: str = modal.parameter()
    size: int = modal.parameter(default=2)

    @modal.enter()
    async def load(self):
        import os

        self.greeting = os.environ["GREETING"]
        self.events.append("child")

    @modal.method()
    async def predict(self, word: str) -> str:
        return f"{self.greeting} {self.name} {word * self.size}"

    @modal.method()
    def stream(self, n: int):
        for i in range(n):
            yield i, self.plain()

    def plain(self) -> str:
        return self.name.upper()

    @modal.exit()
    def bye(self) -> None:
        print("bye")


@app.cls()
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    @modal.method()
    def add(self, by: int = 1) -> int:
        self.value += by
        return self.value


@app.function()
@modal.batched(max_batch_size=4, wait_ms=50)
async def lengths(words: list[str]) -> list[int]:
    return [len(word) for word in words]


@app.local_entrypoint()
def main() -> None:
    model = Model(name="ana")
    print(model.predict.remote("x"), "|", Model(name="bo", size=3).predict.remote("y"))
    print("history", model.history.remote())
    print("stream", list(model.stream.remote_gen(2)))
    print("map", sorted(model.predict.map(["a", "b"])))
    counter: Any = Counter(10)
    print("counter", counter.add.remote(), counter.add.remote(5))
    print("batched", list(lengths.map(["a", "bb", "ccc"])))
    fast = Counter.with_options(cpu=0.2)(1)  # type: ignore[attr-defined]
    print("variant", fast.add.remote())
