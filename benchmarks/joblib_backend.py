"""How fast is joblib on procflow next to joblib on loky? Small tasks, tasks with a big array, a grid search.

    python benchmarks/joblib_backend.py [--rounds N] [--json FILE]

Both have two workers, which are warm: each contestant runs once before it counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _side_by_side import arguments, compare, report
from joblib import Parallel, delayed, parallel_config
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

import procflow.joblib

TASKS = 2000
ARRAYS = 20


def seconds_on(backend: str, work: Callable[[], Any]) -> Callable[[], float]:
    def measure() -> float:
        with parallel_config(backend, n_jobs=2):
            begin = time.perf_counter()
            work()
            return time.perf_counter() - begin

    return measure


def negate(number: int) -> int:
    return -number


def main() -> None:
    options = arguments(__doc__ or "")
    procflow.joblib.register()
    array = np.ones(2**21)  # 16 MiB
    data, target = make_classification(2000, 50, random_state=0)

    def search() -> None:
        GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.01, 0.1, 1.0, 10.0]}, cv=5).fit(data, target)

    questions: dict[str, Callable[[], Any]] = {
        f"{TASKS} trivial tasks": lambda: Parallel()(delayed(negate)(number) for number in range(TASKS)),
        f"{ARRAYS} sums of one array of 16 MiB": lambda: Parallel()(delayed(np.sum)(array) for _ in range(ARRAYS)),
        "A call of Parallel with two trivial tasks": lambda: Parallel()(delayed(negate)(number) for number in range(2)),
        "A grid search: 20 fits of a logistic regression": search,
    }
    results = [
        compare(question, {name: seconds_on(name, work) for name in ("procflow", "loky")}, options.rounds)
        for question, work in questions.items()
    ]
    report(results, options.json)


if __name__ == "__main__":
    main()
