"""`python -m procflow COMMAND`: each command is a module of its own, imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {  # name: the module, whose `main(arguments)` returns the exit code, and what it does
    "doctor": ("procflow.doctor.command", "what this machine offers, a self-test, and how fast it is"),
}


def usage() -> str:
    """What there is."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["usage: python -m procflow COMMAND [OPTION...]", "", *lines, "", "COMMAND --help tells more."])


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code, 2 if there is none of this name."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", ())
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in COMMANDS:
        print(f"procflow has no command {name!r}" if name else "Which command?", file=sys.stderr)
        print(usage(), file=sys.stderr)
        return 2
    code: int = import_module(COMMANDS[name][0]).main(rest)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # what a command had started, it has ended
        sys.exit(130)
