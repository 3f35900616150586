"""A pool of four processes squares six numbers.

python examples/pool-base.py [spawn | fork | forkserver]
"""

import sys

from procflow import Pool, set_start_method


def square(number: int) -> int:
    return number * number


def main() -> None:
    with Pool(4) as pool:
        print(pool.map(square, range(6)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_start_method(sys.argv[1])
    main()
