"""Extract, transform, load: generate a data set, map over its parts in parallel, chart the result.

minimodal run examples/parallel_etl.py --parts 200
"""

import random

import minimodal

app = minimodal.App("parallel-etl")

CITIES = ("Cadiz", "Lima", "Oslo", "Pune", "Quito")


@app.function()
def extract(part: int) -> list[tuple[str, float]]:
    """A thousand measurements, the same ones each time for the same part."""
    source = random.Random(part)
    return [(source.choice(CITIES), source.gauss(15 + part % 10, 5)) for _ in range(1000)]


@app.function()
def transform(rows: list[tuple[str, float]]) -> dict[str, tuple[int, float]]:
    """Count and sum for each city."""
    totals: dict[str, tuple[int, float]] = {}
    for city, degrees in rows:
        count, total = totals.get(city, (0, 0.0))
        totals[city] = count + 1, total + degrees
    return totals


@app.local_entrypoint()
def main(parts: int = 200) -> None:
    merged: dict[str, tuple[int, float]] = {}
    # The second map starts while the first still runs: both are lazy.
    for totals in transform.map(extract.map(range(parts)), order_outputs=False):
        for city, (count, total) in totals.items():
            before = merged.get(city, (0, 0.0))
            merged[city] = before[0] + count, before[1] + total
    print(f"{sum(count for count, _ in merged.values()):,} rows")
    for city, (count, total) in sorted(merged.items()):
        mean = total / count
        print(f"{city:6} {mean:6.2f} " + "#" * round(mean * 2))
