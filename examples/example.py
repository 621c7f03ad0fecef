"""A custom image, parallel execution and streaming.

minimodal run examples/example.py --words 6
"""

from collections.abc import Iterator

import minimodal

image = minimodal.Image.debian_slim().uv_pip_install("humanize", "roman")
app = minimodal.App("example", image=image)


@app.function(cpu=0.25, memory=256, retries=2)
def in_words(number: int) -> str:
    """Runs in containers that have the two packages; this machine needs neither."""
    import humanize
    import roman

    return f"{humanize.intword(number)}; in Rome {roman.toRoman(number)}"


@app.function()
def count_down(start: int) -> Iterator[str]:
    """Streams: each item arrives while the function goes on."""
    for n in range(start, 0, -1):
        yield f"{n}…"
    yield "lift-off"


@app.local_entrypoint()
def main(words: int = 4) -> None:
    print("In parallel, results in the order of the inputs:")
    for line in in_words.map(10**i + i for i in range(words)):
        print(" ", line)

    print("A stream:", *count_down.remote_gen(3))

    call = in_words.spawn(1984)  # on record at once; `minimodal calls list` shows it
    print("Spawned, and collected later:", call.get())
