"""Three processes print A, B and C, one character at a time, at the same time.

python examples/process-base.py [spawn | fork | forkserver]
"""

import sys
import time

from procflow import Process, set_start_method

TIMES = 20


def print_character(character: str) -> None:
    for _ in range(TIMES):
        print(character, end="", flush=True)
        time.sleep(0.01)


def main() -> None:
    # A string is an iterable of characters, so args="A" is one argument: "A".
    processes = [Process(target=print_character, args=character) for character in "ABC"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_start_method(sys.argv[1])
    main()
