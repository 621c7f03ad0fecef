"""Schedules fire while the app runs or is deployed; `minimodal up` hosts what is deployed.

minimodal run examples/cron_jobs_example.py      # a few ticks, here and now
minimodal deploy examples/cron_jobs_example.py   # and then: minimodal up
"""

import time

import minimodal

app = minimodal.App("cron-jobs-example")


@app.function(schedule=minimodal.Period(seconds=1))
def tick() -> None:
    print("tick")


@app.function(schedule=minimodal.Cron("0 9 * * 1-5", timezone="Europe/Madrid"))
def weekday_report() -> None:
    """Nine o'clock in Madrid, whatever the clocks there do."""
    print("good morning")


@app.local_entrypoint()
def main(seconds: float = 3.5) -> None:
    print(f"waiting {seconds:g} seconds for ticks")
    time.sleep(seconds)
    print("done")
