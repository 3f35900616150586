"""What do 8 and 64 workers cost, where there is no work to speak of? Does a submit cost more with more of them?"""

from __future__ import annotations

from _hosts import Question, run
from submits import per_call
from tiny_map import per_item

QUESTIONS = [
    question
    for workers in (8, 64)
    for question in (
        Question(
            f"map of 5,000 items, chunksize=1, {workers} workers, per item",
            per_item,
            5000,
            workers=workers,
            settings={"chunksize": 1},
        ),
        Question(
            f"5,000 submits, then all results, {workers} workers, per call",
            per_call,
            5000,
            needs="submit",
            workers=workers,
        ),
    )
]

if __name__ == "__main__":
    run(QUESTIONS)
