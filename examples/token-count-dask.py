"""Count the tokens of the standard library's source files on a Dask cluster, and in a plain loop.

python examples/token-count-dask.py [ADDRESS] [--limit FILES]

Without an address it starts two worker processes on this machine. A cluster of several, whose workers need procflow,
the same Python, and these files at the same place:

    dask scheduler --protocol tls --tls-ca-file ca.pem --tls-cert cert.pem --tls-key key.pem
    dask worker tls://scheduler:8786 --tls-ca-file ca.pem --tls-cert cert.pem --tls-key key.pem     # on each machine

and here DASK_DISTRIBUTED__COMM__TLS__CA_FILE=ca.pem, ..._TLS__CLIENT__CERT=cert.pem and ..._TLS__CLIENT__KEY=key.pem in
the environment. Without the tls options, whoever reaches the scheduler's port can run code on all of these machines.
"""

import argparse
import runpy
import sys
import sysconfig
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from distributed import LocalCluster

from procflow import Pool
from procflow.engines import DaskEngine

# What runs there need not be importable there: it travels by value.
local = runpy.run_path(str(Path(__file__).with_name("token-count.py")))
count_tokens, source_files, with_progress = local["count_tokens"], local["source_files"], local["with_progress"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("address", nargs="?", help="the scheduler's; without one, a cluster is started here")
    parser.add_argument("--limit", type=int, metavar="FILES", help="only the first so many files")
    options = parser.parse_args()
    files = source_files(sysconfig.get_path("stdlib"))[: options.limit]
    print(f"{len(files)} files of Python {sys.version.split()[0]}")

    with ExitStack() as stack:
        address = options.address
        if address is None:
            cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
            address = stack.enter_context(cluster).scheduler_address
        pool = stack.enter_context(Pool(engine=DaskEngine(address)))
        started = time.perf_counter()
        parallel = dict(with_progress("cluster", pool.imap_unordered(count_tokens, files), len(files)))
        parallel_time = time.perf_counter() - started

    started = time.perf_counter()
    serial = dict(with_progress("serial", map(count_tokens, files), len(files)))
    serial_time = time.perf_counter() - started

    kinds: Counter[str] = Counter()
    for counted in parallel.values():
        if not isinstance(counted, str):
            kinds.update(counted)
    print(f"{kinds.total()} tokens")
    print(f"cluster: {parallel_time:.2f} s")
    print(f"serial:  {serial_time:.2f} s, {serial_time / parallel_time:.2f} times as long")
    same = parallel == serial
    print("equal: yes" if same else "equal: NO")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
