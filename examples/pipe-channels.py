"""Requests and responses with types over a Pipe, big ones among them, from a program and from a coroutine.

python examples/pipe-channels.py [spawn | fork | forkserver]
"""

import asyncio
import sys

from procflow import Connection, Pipe, Process, TimeoutError, set_start_method, wait


def serve(requests: Connection[int, bytes]) -> None:
    """Answer each with the sum of its bytes, until nobody asks any more."""
    for data in requests:
        requests.send(sum(data))


async def ask(service: Connection[bytes, int]) -> int:
    """The asyncio loop goes on while this waits."""
    await service.asend(bytes(range(100)))
    return await service.arecv()


def main() -> None:
    ours, theirs = Pipe[bytes, int]()  # sent and received, as the first end sees them
    server = Process(target=serve, args=[theirs])
    server.start()
    theirs.close()

    try:
        ours.recv(timeout=0.01)
    except TimeoutError:
        print("nothing to receive yet")
    ours.send(b"\x01\x03")
    print("ready:", wait([ours, server], timeout=60.0) == [ours], "sum:", ours.recv(timeout=60.0))
    ours.send(bytes(8 * 2**20))  # 8 MiB
    print("sum of 8 MiB of zeros:", ours.recv(timeout=60.0))
    print("from a coroutine:", asyncio.run(ask(ours)))

    ours.close()
    server.join()
    print("the server has ended:", server.exitcode)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_start_method(sys.argv[1])
    main()
