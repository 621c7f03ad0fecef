"""Files that outlive their containers: one function writes, another reads, the script lists.

minimodal run examples/volumes_example.py
"""

from pathlib import Path

import minimodal

app = minimodal.App("volumes-example")
volume = minimodal.Volume.from_name("reports", create_if_missing=True)


@app.function(volumes={"/reports": volume})
def write(name: str, lines: int) -> str:
    path = Path("/reports") / f"{name}.txt"
    path.write_text("".join(f"{name}, line {i}\n" for i in range(lines)))
    volume.commit()  # now other containers can see it, after their reload()
    return str(path)


@app.function(volumes={"/reports": volume.read_only()})
def count_lines() -> dict[str, int]:
    volume.reload()
    return {
        path.name: len(path.read_text().splitlines())
        for path in sorted(Path("/reports").glob("*.txt"))
    }


@app.local_entrypoint()
def main() -> None:
    print("written:", *write.starmap([("spring", 3), ("summer", 5)]))
    print("counted in a container:", count_lines.remote())
    print("listed from here:", *sorted(entry.path for entry in volume.listdir("/")))
    print("read from here:", b"".join(volume.read_file("spring.txt")).decode().splitlines()[-1])
