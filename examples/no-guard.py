"""A script without `if __name__ == "__main__"`, as one writes it down: it works, under every start method.

python examples/no-guard.py [spawn | fork | forkserver]
"""

import sys

from procflow import Pool, Process, set_start_method

if len(sys.argv) > 1:
    set_start_method(sys.argv[1], force=True)


class Point:
    """A class of the script: its instances come back as such."""

    def __init__(self, x: float) -> None:
        self.x = x


def move(point: Point) -> Point:
    return Point(point.x + 1)


with Pool(2) as pool:
    moved = pool.map(move, [Point(0), Point(1)])
    print([point.x for point in moved], all(type(point) is Point for point in moved))
    print(pool.map(lambda x: x * x, range(5)))

with Process(target=move, args=[Point(41)]) as process:
    print(process.result(timeout=60.0).x)
