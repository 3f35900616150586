"""What the start method changes: in which module a function runs, and who the parent of the child is.

python examples/start-methods.py [spawn | fork | forkserver]

Without an argument it is procflow's default. With forkserver the operating system's parent of the child is the fork
server; procflow.parent_process() is the process that started it, under every method.
"""

import os
import sys

from procflow import Process, get_start_method, set_start_method


def tell(title: str) -> None:
    print(title)
    print("  module name:", __name__)
    print("  parent process:", os.getppid())
    print("  process id:", os.getpid(), flush=True)


def main() -> None:
    print("start method:", get_start_method())
    tell("main")
    process = Process(target=tell, args=("child",))
    process.start()
    process.join()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_start_method(sys.argv[1])
    main()
