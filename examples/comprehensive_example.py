"""Every feature in one pipeline: a shop's reviews are collected, scored, stored, served and reported.

minimodal run examples/comprehensive_example.py --reviews 300
minimodal deploy examples/comprehensive_example.py && minimodal up    # the endpoint and the schedule
"""

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import minimodal

# What containers have: an image with a package and a setting, built once, found again by its content.
image = minimodal.Image.debian_slim().uv_pip_install("humanize").env({"SHOP": "Blue Door"})
app = minimodal.App("comprehensive", image=image)

store = minimodal.Volume.from_name("reviews", create_if_missing=True)  # files
counts = minimodal.Dict.from_name("review-counts", create_if_missing=True)  # shared values
api_key = minimodal.Secret.from_dict({"REVIEWS_API_KEY": "key-0123456789"})  # encrypted, masked

WORDS = {"lovely": 2, "good": 1, "slow": -1, "broken": -2}


# --- collect: a stream out of a container, with a secret ---------------------------------------------


@app.function(secrets=[api_key], timeout=60)
def collect(count: int) -> Iterator[dict[str, object]]:
    """Reviews as the shop's API would page them; each arrives while the function goes on."""
    assert os.environ["REVIEWS_API_KEY"]
    print(f"collecting {count} reviews of {os.environ['SHOP']}")
    words = [*WORDS, "door"]
    for number in range(count):
        text = f"{words[number % 5]} {words[number * 7 % 5]}"
        yield {"id": number, "stars": 1 + number % 5, "text": text}


# --- score: a class that loads once for each container, many inputs at a time, in batches ------------


@app.cls(cpu=0.25, memory=256, max_containers=3, scaledown_window=30)
class Scorer:
    language: str = minimodal.parameter(default="en")

    @minimodal.enter()
    def load(self) -> None:
        self.weights = dict(WORDS)  # what would take a minute to load

    @minimodal.method()
    @minimodal.batched(max_batch_size=50, wait_ms=20)
    def score(self, texts: list[str]) -> list[int]:
        return [sum(self.weights.get(word, 0) for word in text.split()) for text in texts]


# --- check: may fail, and is tried again -------------------------------------------------------------


@app.function(retries=minimodal.Retries(max_retries=3, initial_delay=0.0, backoff_coefficient=1.0))
def check(review: dict[str, object]) -> bool:
    """The first attempt of each tenth one fails, as networks do."""
    number = int(str(review["id"]))
    if number % 10 == 0 and counts.put(f"tried {number}", True, skip_if_exists=True):
        raise ConnectionError(f"review {number}: the network is down")
    return "broken" not in str(review["text"])


# --- store and report: a volume, a nested call, a package of the image -------------------------------


@app.function(volumes={"/reviews": store})
def save(rows: list[dict[str, object]]) -> str:
    path = Path("/reviews/scored.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store.commit()
    counts["saved"] = len(rows)
    return report.remote()  # from one container to another


@app.function(volumes={"/reviews": store.read_only()})
def report() -> str:
    import humanize

    store.reload()
    rows = [json.loads(line) for line in Path("/reviews/scored.jsonl").open()]
    total = sum(row["score"] for row in rows)
    return f"{humanize.intcomma(len(rows))} reviews, a mean score of {total / len(rows):.2f}"


# --- serve and repeat: an endpoint and a schedule, while the app runs or is deployed -----------------


@app.web_endpoint("/reviews/{kind}")
def how_many(kind: str) -> dict[str, object]:
    return {"kind": kind, "count": counts.get(kind, 0)}


@app.function(schedule=minimodal.Period(seconds=2))
def heartbeat() -> None:
    counts["beats"] = counts.get("beats", 0) + 1


@app.local_entrypoint()
def main(reviews: int = 100) -> None:
    collected = list(collect.remote_gen(reviews))
    print(f"collected {len(collected)}")

    scores = Scorer(language="en").score.map([row["text"] for row in collected])
    scored = [{**row, "score": score} for row, score in zip(collected, scores, strict=True)]
    kept = [row for row, good in zip(scored, check.map(scored), strict=True) if good]
    print(f"kept {len(kept)} after checks")

    call = save.spawn(kept)  # on record: it would survive a crash of this process
    print("report:", call.get(timeout=60))
    print("stored:", *(f"{entry.path}" for entry in store.listdir("/")))

    url = str(how_many.get_web_url()).format(kind="saved")
    with urllib.request.urlopen(url, timeout=30) as response:
        print("served:", json.load(response))

    box = minimodal.Sandbox.create("python3", "-c", "print(6 * 7)", app=app, timeout=30)
    print("untrusted code says:", box.stdout.read().strip())

    while not counts.get("beats", 0):
        time.sleep(0.1)
    print("the schedule has fired")
    counts.clear()
