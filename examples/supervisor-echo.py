"""A TCP echo server, and a worker that uses it, under a supervisor: the worker is killed, and comes back.

python examples/supervisor-echo.py [spawn | fork | forkserver]
"""

import os
import signal
import socket
import sys
import threading
from queue import SimpleQueue

from procflow import Connection, Pipe, Supervisor, notify_ready, set_start_method
from procflow.supervisor import Exited, Ready, Restarted, Started

HOST = "127.0.0.1"


def echo(listener: socket.socket) -> None:
    """The service: each line comes back with the server's process id."""
    notify_ready()
    while True:
        client, _ = listener.accept()
        with client, client.makefile("rw") as lines:
            for line in lines:
                lines.write(f"{os.getpid()} {line}")
                lines.flush()


def work(port: int, report: Connection[str, str]) -> None:
    """Have three lines echoed, say so, and wait for more work."""
    with socket.create_connection((HOST, port)) as connection, connection.makefile("rw") as lines:
        servers: set[str] = set()
        for number in range(3):
            lines.write(f"{number}\n")
            lines.flush()
            server, echoed = lines.readline().split()
            assert int(echoed) == number
            servers.add(server)
        report.send(f"worker: 3 echoes from server {' '.join(servers)}")
        threading.Event().wait()


def show(event: object) -> None:
    match event:
        case Ready(name):
            print(f"{name}: ready")
        case Restarted(name):
            print(f"{name}: restarted")
        case Exited(name, _, exitcode, why):
            print(f"{name}: {why}, exit code {exitcode}")
        case _:
            pass


def main() -> None:
    reports, theirs = Pipe()
    # The listening socket belongs to this process: a server that is restarted goes on with the clients that wait.
    with socket.create_server((HOST, 0)) as listener, Supervisor("rest_for_one") as supervisor:
        pids: SimpleQueue[int] = SimpleQueue()  # of the worker, at each start

        def note_worker(event: object) -> None:
            if isinstance(event, Started | Restarted) and event.name == "worker":
                pids.put(event.pid or 0)

        supervisor.subscribe(show)
        supervisor.subscribe(note_worker)
        supervisor.add(echo, [listener], name="server", ready=30.0)
        supervisor.add(work, [listener.getsockname()[1], theirs], name="worker")
        print(reports.recv(timeout=30.0))
        print("the worker is killed", flush=True)
        os.kill(pids.get(timeout=30.0), signal.SIGKILL)
        pids.get(timeout=30.0)  # it is back, and `show` has said so
        print(reports.recv(timeout=30.0))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_start_method(sys.argv[1])
    main()
