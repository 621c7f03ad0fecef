"""A job queue in a few lines: a Queue for the work, a Dict for the results, workers that drain it.

minimodal run examples/job_queue.py --jobs 12
"""

import minimodal

app = minimodal.App("job-queue")


@app.function(max_containers=3)
def worker(name: str, jobs: minimodal.Queue, results: minimodal.Dict) -> int:
    """Works until the queue has been empty for a moment."""
    done = 0
    while (number := jobs.get(block=False)) is not None:
        results[number] = f"{number} squared is {number * number}, says {name}"
        done += 1
    return done


@app.local_entrypoint()
def main(jobs: int = 12) -> None:
    with minimodal.Queue.ephemeral() as queue, minimodal.Dict.ephemeral() as results:
        queue.put_many(list(range(1, jobs + 1)))
        shares = list(worker.starmap((f"worker {i}", queue, results) for i in range(3)))
        print(f"{sum(shares)} jobs done by {len(shares)} workers")
        print(results[jobs].partition(",")[0])
