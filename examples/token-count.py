"""Count the tokens of every source file of the standard library, in parallel and then in a plain loop.

python examples/token-count.py [spawn | fork | forkserver] [--limit FILES] [--processes N]

The two counts must be equal; the exit code says whether they are. Progress goes to stderr, the result to stdout.
"""

import argparse
import os
import sys
import sysconfig
import time
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator

from procflow import Pool, cpu_count, get_all_start_methods, get_start_method, set_start_method

NOT_OURS = {"site-packages", "dist-packages", "__pycache__"}

# The number of tokens by kind, or why the file has none.
Counted = tuple[str, dict[str, int] | str]


def source_files(top: str) -> list[str]:
    found: list[str] = []
    for directory, names, files in os.walk(top):
        names[:] = [name for name in names if name not in NOT_OURS]
        found += [os.path.join(directory, name) for name in files if name.endswith(".py")]
    return sorted(found)


def count_tokens(path: str) -> Counted:
    try:
        with warnings.catch_warnings(), tokenize.open(path) as file:
            warnings.simplefilter("ignore")  # some of the standard library's tests are odd on purpose
            kinds = Counter(tokenize.tok_name[token.type] for token in tokenize.generate_tokens(file.readline))
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError) as error:
        return path, f"{type(error).__name__}: {error}".replace(path, os.path.basename(path))
    return path, dict(kinds)


def with_progress(title: str, counted: Iterable[Counted], total: int) -> Iterator[Counted]:
    """Pass `counted` on, and show on stderr how far it is: a line that moves, or a line for each tenth."""
    moving = sys.stderr.isatty()
    shown = 0
    for done, item in enumerate(counted, start=1):
        yield item
        percent = 100 * done // total
        step = percent if moving else percent // 10 * 10
        if step > shown:
            shown = step
            bar = "#" * (percent // 4)
            line = f"\r{title} [{bar:25}] {percent:3} %" if moving else f"{title}: {done} of {total} files\n"
            print(line, end="", file=sys.stderr, flush=True)
    if moving:
        print(file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("method", nargs="?", choices=get_all_start_methods(), help="the start method")
    parser.add_argument("--limit", type=int, metavar="FILES", help="only the first so many files")
    parser.add_argument("--processes", type=int, default=cpu_count(), help="default: %(default)s, all that are usable")
    options = parser.parse_args()
    if options.method:
        set_start_method(options.method)

    top = sysconfig.get_path("stdlib")
    files = source_files(top)[: options.limit]
    nbytes = 0
    for path in files:  # both counts then read from the system's cache
        with open(path, "rb") as file:
            nbytes += len(file.read())
    print(f"{len(files)} files of Python {sys.version.split()[0]}, {nbytes / 1e6:.1f} MB")

    started = time.perf_counter()
    with Pool(options.processes) as pool:
        parallel = dict(with_progress("parallel", pool.imap_unordered(count_tokens, files), len(files)))
    parallel_time = time.perf_counter() - started

    started = time.perf_counter()
    serial = dict(with_progress("serial", map(count_tokens, files), len(files)))
    serial_time = time.perf_counter() - started

    kinds: Counter[str] = Counter()
    refused: list[tuple[str, str]] = []
    for path, result in sorted(parallel.items()):
        if isinstance(result, str):
            refused.append((os.path.relpath(path, top), result))
        else:
            kinds.update(result)
    print(f"{kinds.total()} tokens in {len(files) - len(refused)} files")
    for kind, count in kinds.most_common(5):
        print(f"  {kind:9} {count:9}")
    print(f"{len(refused)} files do not tokenize, and are not counted")
    for name, why in refused:
        print(f"  {name}: {why}")
    print(f"parallel: {parallel_time:.2f} s by {options.processes} processes, start method {get_start_method()}")
    print(f"serial:   {serial_time:.2f} s, {serial_time / parallel_time:.2f} times as long")
    same = parallel == serial
    print("equal: yes" if same else "equal: NO")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
