"""Extract, transform, load: a data set is generated, mapped over in parallel, and plotted.

minimodal run examples/parallel_etl.py --parts 5000 --plot-to weather.svg
"""

import math
import random
from collections.abc import Iterable
from pathlib import Path

import minimodal

app = minimodal.App("parallel-etl")

CITIES = {"Cadiz": 18.6, "Lima": 19.2, "Oslo": 6.9, "Pune": 25.0, "Quito": 13.9}
Totals = dict[tuple[str, int], tuple[int, float]]  # (city, month): rows, sum of degrees


@app.function()
def extract(part: int) -> list[tuple[str, int, float]]:
    """A hundred measurements (city, month, degrees), the same each time for the same part."""
    source = random.Random(part)
    rows = []
    for _ in range(100):
        city, month = source.choice(list(CITIES)), source.randrange(12)
        season = math.cos((month - 6) / 12 * math.tau) * (9 if city == "Oslo" else 3)
        rows.append((city, month, source.gauss(CITIES[city] + season, 2)))
    return rows


@app.function()
def transform(rows: list[tuple[str, int, float]]) -> Totals:
    """Count and sum for each city and month."""
    totals: Totals = {}
    for city, month, degrees in rows:
        count, total = totals.get((city, month), (0, 0.0))
        totals[city, month] = count + 1, total + degrees
    return totals


def load(parts: Iterable[Totals]) -> dict[tuple[str, int], float]:
    """The means of all parts together, as they come in."""
    merged: Totals = {}
    for totals in parts:
        for key, (count, total) in totals.items():
            before = merged.get(key, (0, 0.0))
            merged[key] = before[0] + count, before[1] + total
    print(f"{sum(count for count, _ in merged.values()):,} rows")
    return {key: total / count for key, (count, total) in merged.items()}


@app.function()
def plot(means: dict[tuple[str, int], float]) -> str:
    """A line for each city over the months, as SVG."""
    colours = ("#d1495b", "#edae49", "#00798c", "#30638e", "#66a182")
    lines = []
    for colour, city in zip(colours, CITIES, strict=True):
        points = [(50 + 40 * month, 300 - 9 * means[city, month]) for month in range(12)]
        path = " ".join(f"{x},{y:.0f}" for x, y in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="3"/>')
        lines.append(f'<text x="500" y="{points[-1][1]:.0f}" fill="{colour}">{city}</text>')
    axis = "".join(
        f'<text x="8" y="{300 - 9 * degrees}" fill="#777">{degrees} °C</text>'
        for degrees in range(0, 31, 10)
    )
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="580" height="330" font-size="14">'
    return f"{head}{axis}{''.join(lines)}</svg>\n"


@app.local_entrypoint()
def main(parts: int = 2000, plot_to: str = "parallel_etl.svg") -> None:
    # The second map starts while the first still runs: both are lazy.
    means = load(transform.map(extract.map(range(parts)), order_outputs=False))
    for city in CITIES:
        mean = sum(means[city, month] for month in range(12)) / 12
        print(f"{city:6} {mean:6.2f} " + "#" * round(mean * 2))
    Path(plot_to).write_text(plot.remote(means), encoding="utf-8")
    print(f"plotted to {plot_to}")
