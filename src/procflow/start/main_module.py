"""`__main__` in a child that did not inherit it: the user's script, run only when one of its names is needed.

    WAITING -> RUNNING -> DONE          (any -> RUNNING happens once per process)

M1  `sys.modules['__main__']` and `['__mp_main__']` are the same module, so what pickle finds under either name is one
    object. In the parent multiprocessing makes the same alias: a class that crosses comes back as the parent's own.
M2  The script runs as `__mp_main__`, so `if __name__ == "__main__":` is skipped, as under multiprocessing.
M3  A script without that guard reaches its own first start() or Pool(). There `stop_replay()` ends the run; the names
    defined by then are what the child can use. So nothing is started twice, and nothing is raised at the user.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any
else:
    ModuleType = type(sys)  # types would be an import

CHILD, HOME, FOREIGN = range(3)  # for whom something is pickled: a child of this process, its parent, any other one

_replaying_main: _LazyMain | None = None


class ReplayStop(BaseException):
    """Ends the replay of a script at its first start of a process. Caught in this module, never shown."""


def replaying() -> bool:
    """True while a child runs the user's script to learn its names."""
    return _replaying_main is not None


def stop_replay() -> None:
    """Called first wherever processes are started: during a replay, raise what ends it; else nothing."""
    if _replaying_main is not None:
        raise ReplayStop


def describe() -> tuple[str, str, str | None] | None:
    """How a child can find this process's `__main__`: (kind, name or path, `__file__`). None if it can't.

    It can't for `python -c`, standard input, a REPL and notebooks: there is no source to run again.
    """
    main = sys.modules.get("__main__")
    if isinstance(main, _LazyMain):
        return main.__procflow_source__  # a child of a child looks where we were told to look
    if main is not None:
        sys.modules["__mp_main__"] = main  # M1: a program that runs programs, as coverage does, has put another there
    file = getattr(main, "__file__", None)
    if isinstance(file, str):
        file = str(file)  # exactly: pdb's is of a class of its own, and the record takes plain values only
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if isinstance(name, str):
        return "name", name, file
    if not isinstance(file, str) or not os.path.isfile(file):
        return None
    if os.path.splitext(os.path.basename(file))[0] == "ipython":
        return None  # IPython's own launcher, as in multiprocessing.spawn: what the user typed has no file
    return "path", os.path.abspath(file), file


def by_value() -> bool:
    """Whether what `__main__` defines must cross by value: no child can run the source, or it is being typed."""
    global _known
    main = sys.modules.get("__main__")
    if _known is None or _known[0] is not main or _known[1] != getattr(main, "__file__", None):
        _known = main, getattr(main, "__file__", None), describe() is None  # 5 us: not for each task
    return _known[2] or "ps1" in sys.__dict__  # hasattr takes six times as long where there is none


_known: tuple[ModuleType | None, str | None, bool] | None = None  # `__main__`, its file, and that nothing can find it


def install(source: tuple[str, str, str | None] | None) -> None:
    """Make the lazy module of `source` this child's `__main__`."""
    main = _LazyMain("__mp_main__")
    main.__dict__["__procflow_source__"] = source
    if source is not None and source[2] is not None:
        main.__file__ = source[2]
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


_is_fork = False  # of the parent itself
_origin: dict[str, object] = {}  # what this child's `__main__` was born with: by the fork, or by running the script


def origin() -> dict[str, object]:
    """The names that this child began with."""
    return _origin


def inherit() -> None:
    """In a fork: this process has all names of the parent's `__main__`."""
    global _is_fork, _origin
    _is_fork, _origin = True, vars(sys.modules["__main__"]).copy()
    places = sys.modules.get("procflow.start.places")
    if places is not None:
        places.inherit()


def is_inherited(obj: object) -> bool:
    """Whether this is a fork that has got `obj` from its parent, under a name that tells the parent which it is."""
    name = getattr(obj, "__qualname__", None)
    main = sys.modules["__main__"]
    if not isinstance(name, str) or isinstance(main, _LazyMain) or getattr(obj, "__module__", None) != "__main__":
        return False
    return obj is _origin.get(name) is vars(main).get(name)


class _LazyMain(ModuleType):
    """Runs the script at the first name that is missing. Costs nothing to those who need none."""

    __procflow_source__: tuple[str, str, str | None] | None

    def __getattr__(self, name: str) -> Any:  # whatever the script defined under that name
        # Import machinery, inspect, doctest and copy probe for dunder names; none of them is worth a run.
        if not (name.startswith("__") and name.endswith("__")):
            _replay(self)
            if name in self.__dict__:
                return self.__dict__[name]
            if self.__procflow_source__ is None and (came := _class_by_value(name)) is not None:
                return came
            _missed.add(name)
        raise AttributeError(_why_missing(self, name))


_lock = RLock()
_state = "waiting"
_failure: BaseException | None = None
_stopped = ""  # where and why the run ended before the end of the script
_missed: set[str] = set()  # names that were not found


def _replay(main: _LazyMain) -> None:
    global _state, _failure, _replaying_main, _stopped
    if _state == "done" or main.__procflow_source__ is None:
        return
    with _lock:  # another thread that needs a name waits here until the run is over
        if _state != "waiting":
            return  # done meanwhile, or the script itself asks for a name that it has not defined yet
        _state, _replaying_main = "running", main
        _mark_inheriting(True)
        earlier = {name: value for name, value in vars(main).items() if not name.startswith("__")}
        try:
            exec(_load(main), main.__dict__)
        except (ReplayStop, SystemExit) as stop:  # what it defined so far is what there is
            does = "starts a process" if isinstance(stop, ReplayStop) else "exits"
            _stopped = f"line {_line(stop)}, where the script {does} without an `if __name__ == '__main__':` above it"
        except Exception as error:
            _failure = error
            raise
        finally:
            _state, _replaying_main = "done", None
            _origin.update(vars(main))
            vars(main).update(earlier)  # what the parent has sent, or code here has set, is newer than the script
            _mark_inheriting(False)


def _mark_inheriting(flag: bool) -> None:
    """Make multiprocessing's own start() refuse during the replay, else an unguarded script would fork for ever."""
    module = sys.modules.get("multiprocessing.process")
    if module is not None:
        module.current_process()._inheriting = flag


def _load(main: _LazyMain) -> CodeType:
    # importlib.machinery and .util would import more than all the rest of this child.
    machinery: Any = sys.modules["_frozen_importlib_external"]
    source = main.__procflow_source__
    assert source is not None
    kind, where, _ = source
    if kind == "path":
        main.__file__ = where
        if where.endswith(".pyc"):
            code = machinery.SourcelessFileLoader("__mp_main__", where).get_code("__mp_main__")
        else:
            loader = machinery.SourceFileLoader("__mp_main__", where)
            code = loader.source_to_code(loader.get_data(where), where)
    else:
        # "__main__" alone is a directory or zip application: first on sys.path, and not a module to import by name.
        if where == "__main__":
            spec: Any = machinery.PathFinder.find_spec(where)
        else:
            from importlib import util

            spec = util.find_spec(where)
        if spec is None or spec.loader is None:
            raise ImportError(f"can't find the main module {where!r} again in the child process", name=where)
        main.__spec__, main.__loader__, main.__package__ = spec, spec.loader, spec.parent
        if spec.origin is not None:
            main.__file__ = spec.origin
        code = spec.loader.get_code(where)
    if code is None:
        raise ImportError(f"the main module {where!r} has no code to run in the child process", name=where)
    found: CodeType = code
    return found


def _class_by_value(name: str) -> type | None:
    """The class that cloudpickle has rebuilt here from a `__main__` without source.

    multiprocessing's queues pickle by name: in the parent that name is the caller's own class. The newest wins, as
    after a redefinition in a notebook.
    """
    cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
    tracked: Any = getattr(cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_ID", None) or {}
    found = None
    for cls in list(tracked.values()):
        if cls.__qualname__ == name and cls.__module__ in ("__main__", "__mp_main__"):
            found = cls
    return found


def _line(stop: BaseException) -> int:
    """The line of the script at which this left it. The first frame of the traceback is that of `_replay`."""
    trace = stop.__traceback__
    return trace.tb_next.tb_lineno if trace is not None and trace.tb_next is not None else 0


def explain(error: BaseException) -> None:
    """Add a note to an error that comes of a name which `__main__` does not have here: why, and what to do.

    pickle gives its own words for what `__getattr__` above raised, and a global name of a function does not even ask.
    """
    main = sys.modules.get("__main__")
    if main is None:
        return
    name: str | None = None
    if type(error) is AttributeError:
        name = _missed_by_pickle(main, str(error))
    elif type(error) is NameError and (_stopped or (_is_fork and not by_value())):
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is not None and trace.tb_frame.f_globals is main.__dict__:
            name = error.name
    if name is None:
        return
    if isinstance(main, _LazyMain):
        error.add_note(_why_missing(main, name))
    elif _is_fork:
        error.add_note(
            f"module '__main__' has no attribute {name!r} in this child: it is a fork of the program as it was then. "
            f"Define {name!r} above the line that opens the pool or starts the process."
        )


def _missed_by_pickle(main: ModuleType, text: str) -> str | None:
    if isinstance(main, _LazyMain):
        return next((missed for missed in _missed if f"'{missed}'" in text), None)
    if "module '__main__'" not in text:
        return None
    import re

    found = re.search(r"attribute '(\w+)'", text)
    return found[1] if found is not None and not hasattr(main, found[1]) else None


def _why_missing(main: _LazyMain, name: str) -> str:
    text = f"module '__main__' has no attribute {name!r} in this child"
    source = main.__procflow_source__
    if source is None:
        return f"{text}: it was typed or piped into the parent, so there is no file to read it from"
    if _failure is not None:
        return f"{text}: running {source[1]} for its names raised {_failure!r}"
    if _stopped:
        return (
            f"{text}: it runs {source[1]} for its names, up to {_stopped}. "
            f"Define {name!r} before that line, or put that line and what follows from it under such an `if`."
        )
    return f"{text}: {source[1]} does not define it, or only under `if __name__ == '__main__':`, which a child skips."
