"""A worker process says hello to its parent through a pipe.

python examples/pool-pipe.py [spawn | fork | forkserver]
"""

import sys

from procflow import Connection, Pipe, Process, set_start_method


def greet(connection: Connection[str, str]) -> None:
    with connection:
        connection.send("Hello!")


def main() -> None:
    ours, theirs = Pipe()
    worker = Process(target=greet, args=[theirs])
    worker.start()
    theirs.close()  # the worker has its own copy
    print(ours.recv())
    worker.join()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_start_method(sys.argv[1])
    main()
