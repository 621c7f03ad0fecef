import minimodal

app = minimodal.App("hello")


@app.function()
def square(x: int) -> int:
    print(f"squaring {x}")
    return x * x


@app.local_entrypoint()
def main(x: int = 7) -> None:
    print(f"{x} squared is {square.remote(x)}")
