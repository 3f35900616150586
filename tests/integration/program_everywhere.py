"""What a user may type anywhere: run by test_main_places.py as a script, in a notebook, at a prompt and so on.

No statement at the top has a blank line in it, as that would end it at a prompt. The last line that is printed tells
what went wrong, or that nothing did.
"""

import dataclasses
import enum
import os
import typing

import procflow

METHOD = os.environ["METHOD"]


class Point:
    made = 0

    def __init__(self, x: int) -> None:
        self.x = x

    def moved(self, by: int) -> "Point":
        return Point(self.x + by)

    def __call__(self, by: int) -> "Point":
        return self.moved(by)

    def under_lock(self) -> "Point":
        with lock:
            return Point(-self.x)


class Heir(Point):
    def moved(self, by: int) -> "Point":
        return super().moved(2 * by)


@dataclasses.dataclass
class Pair:
    left: int
    right: Point


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Named(typing.NamedTuple):
    name: str
    size: int


class Trouble(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code


class Loaded:
    model = ""
    parts: typing.ClassVar[list[int]] = []

    def seen(self) -> tuple[object, ...]:
        return self.model, list(Loaded.parts)


lock: typing.Any = None
models: dict[str, int] = {}
count = 0


def prepare(given: typing.Any) -> None:
    global lock, unset
    lock, unset = given, "set in the worker"
    models["in place"] = 1
    Loaded.model = "in the worker"
    Loaded.parts.append(1)


def prepared(_: object) -> tuple[object, ...]:
    with lock:
        return unset, dict(models)


class LoadedByItself(Loaded):
    @classmethod
    def load(cls) -> None:
        cls.model = "by itself"


def loaded_by_itself(_: object) -> tuple[object, ...]:
    return LoadedByItself.model, isinstance(LoadedByItself(), Loaded)


def loaded(_: object) -> tuple[object, ...]:
    return Loaded().seen()


def counted(_: object) -> int:
    global count
    count += 1
    return count


def double(x: int) -> int:
    return 2 * x


def uses_others(x: int) -> "Point":
    return Heir(double(x)).moved(1)


def trouble(code: int) -> None:
    raise Trouble(code, "as asked")


def echo(*values: object) -> object:
    return values


def make_local() -> type:
    class Local:
        value = 5

    return Local


def start(target: typing.Any, *args: object) -> typing.Any:
    process = context.Process(target=target, args=args)
    process.start()
    return process


def is_own(value: object, kind: type, **attributes: object) -> bool:
    return type(value) is kind and isinstance(value, kind) and attributes == vars(value)


def check(what: str, holds: bool) -> None:
    if not holds:
        wrong.append(what)


def error_of(call: typing.Any) -> typing.Any:
    try:
        return call.result(60)
    except Exception as error:
        return error


def check_each(way: str, begin: typing.Callable[..., typing.Any]) -> None:
    n = 10
    Local = make_local()
    calls = {
        "a function": begin(uses_others, 4),
        "a lambda": begin(lambda x: x + double(1), 4),
        "a closure": begin(lambda x: (Point(x + n).x, Local().value), 4),
        "a class": begin(Point, 3),
        "an instance": begin(Point(3), 4),
        "a bound method": begin(Heir(3).moved, 4),
        "a local class": begin(Local),
    }
    Point.made, Local.value = 3, 6
    sent = (Point(1), Heir, Color.BLUE, Named("n", 1), Pair(1, Heir(2)), double, lambda x: x + n, Local(), Local)
    there_and_back, failing = begin(echo, *sent), begin(trouble, 7)
    got = {what: call.result(60) for what, call in calls.items()}
    check(f"{way}: a function", is_own(got["a function"], Point, x=10))
    check(f"{way}: a lambda", got["a lambda"] == 6)
    check(f"{way}: a closure", got["a closure"] == (14, 5))
    check(f"{way}: a class", is_own(got["a class"], Point, x=3))
    check(f"{way}: an instance", is_own(got["an instance"], Point, x=7))
    check(f"{way}: a bound method", is_own(got["a bound method"], Point, x=11))
    check(f"{way}: a local class", is_own(got["a local class"], Local))
    point, kind, color, named, pair, function, closure, local, local_class = there_and_back.result(60)
    check(f"{way}: an instance there and back", is_own(point, Point, x=1))
    check(f"{way}: a class there and back", kind is Heir)
    check(f"{way}: a member of an enum there and back", color is Color.BLUE)
    check(f"{way}: a named tuple there and back", type(named) is Named and named == ("n", 1))
    check(f"{way}: a data class there and back", type(pair) is Pair and is_own(pair.right, Heir, x=2))
    check(f"{way}: a function there and back", function(2) == 4)
    check(f"{way}: a closure there and back", closure(1) == 11)
    check(f"{way}: a local class there and back", is_own(local, Local) and local_class is Local)
    check(f"{way}: what came back leaves the classes as they are", (Point.made, Local.value) == (3, 6))
    error = error_of(failing)
    check(f"{way}: an exception", type(error) is Trouble and error.code == 7)


def main() -> None:
    global context, wrong
    wrong = []
    context = procflow.get_context(METHOD)
    check_each("Process", start)
    with context.Pool(1, prepare, (context.Lock(),)) as pool:
        check_each("submit", pool.submit)
        points = [*pool.map(uses_others, [4, 5]), *pool.map(Heir(3), [4]), *pool.map(lambda x: Point(double(x)), [4])]
        check("map: what it gives", [point.x for point in points] == [10, 12, 11, 8])
        check("map: its classes", {type(point) for point in points} == {Point})
        here = ("set in the worker", {"in place": 1})
        check("an initializer's globals are seen by a function", pool.map(prepared, [0]) == [here])
        if __name__ in ("__main__", "documented"):  # a lambda of an importable module has that of the caller
            seen = pool.map(lambda _: (unset, dict(models), lock is not None), [0])
            check("an initializer's globals are seen by a lambda", seen == [(*here, True)])
        there = [*pool.map(loaded, [0]), pool.submit(loaded, 0).result(60), pool.submit(Loaded().seen).result(60)]
        there += pool.map(lambda _: Loaded().seen(), [0])
        expected = 4 if __name__ in ("__main__", "documented") else 3
        check("what it sets on a class is seen", there[:expected] == expected * [("in the worker", [1])])
        back = pool.submit(Point(1).under_lock).result(60)
        check("a class comes back without the worker's globals that it mentions", is_own(back, Point, x=-1))
        kept = [pool.submit(counted, 0).result(60), *pool.map(counted, [0]), *pool.map(lambda x: 0 + counted(x), [0])]
        check("what a task keeps stays", kept == [1, 2, 3])
    with context.Pool(1, LoadedByItself.load) as pool:
        check(
            "what an initializer sets on its own class is seen",
            pool.map(loaded_by_itself, [0]) == [("by itself", True)],
        )
    here = lock, models, count, "unset" in globals(), Loaded().seen()
    check("nothing of it comes here", here == (None, {}, 0, False, ("", [])))
    print("WRONG:", *wrong, sep="\n") if wrong else print("all as it", "should be")
