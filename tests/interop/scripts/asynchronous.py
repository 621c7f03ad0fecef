import asyncio

import modal

app = modal.App("asynchronous")


@app.function()
async def double(x: int) -> int:
    await asyncio.sleep(0)
    return x * 2


@app.function()
async def count(n: int):
    for i in range(n):
        yield i
    raise ValueError("after the items")


async def inputs():
    for i in range(3):
        yield i


@app.local_entrypoint()
async def main(word: str = "hi"):
    print("remote", await double.remote.aio(21), word)
    print("map", [x async for x in double.map.aio(inputs())])
    got = []
    try:
        async for x in count.remote_gen.aio(2):
            got.append(x)
    except ValueError as e:
        print("stream", got, e)
    call = await double.spawn.aio(4)
    print("spawn", await call.get.aio())
    results = await asyncio.gather(*[double.remote.aio(i) for i in range(5)])
    print("gather", results)
    async with modal.Dict.ephemeral() as d:
        await d.put.aio("k", "v")
        print("dict", await d.get.aio("k"))
