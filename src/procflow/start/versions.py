"""Which values of names a child has: what it has changed stays, and what its parent has changed since comes to it.

    parent: sent(), noted() ──> versions, beside the values ──> child: take()        fork: inherit()

V1  A name has a version in the process that sends it: another one each time that its value or the content of it is
    another than when it was sent last.
V2  A value replaces the child's own only if the child has not got this version of it yet.
V3  What a child began with (the names that a fork has, or that running the script gave) is replaced by the first
    value that comes, unless the child has put another value there.
V4  What is noted counts as got: the child has it, from the fork or from running the script, and has maybe changed it.
"""

from __future__ import annotations

import pickle
from itertools import count
from types import FunctionType, ModuleType
from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Names = Mapping[str, Any]  # the globals of Python code, or the attributes of a class: anything
    Versions = dict[str, int]

__all__ = ["Table"]

_versions = count(1)
_UNKNOWN: Any = object()


class Table:
    """The versions of the names of one namespace, on both sides; `origin` is what a child began with."""

    __slots__ = ("_origin", "_got", "_sent")

    def __init__(self, origin: Names) -> None:
        self._origin = origin
        self._sent: dict[str, _Sent] = {}
        self._got: Versions = {}

    def sent(self, names: Names) -> Versions:
        """Return the versions of these names, which are about to be sent."""
        found: Versions = {}
        for name, value in names.items():
            sent, mark = self._sent.get(name), _mark(value)
            if sent is None or not sent.is_still(value, mark):
                sent = self._sent[name] = _Sent(value, mark)
            found[name] = sent.version
        return found

    def noted(self, names: Names) -> Versions:
        """Return the versions of these names, which a child has without that they are sent."""
        for name, value in names.items():
            sent = self._sent.get(name)
            if sent is None or not (sent.is_noted(value) or sent.is_still(value, _mark(value))):
                self._sent[name] = _Sent(value, None, noted=True)
        return {name: self._sent[name].version for name in names}

    def take(self, names: Names, versions: Versions, present: Names) -> dict[str, Any]:
        """Return those that have come and are to replace what is here at present."""
        taken: dict[str, Any] = {}
        for name, value in names.items():
            known = self._got.get(name)
            if known is None:
                replaced = present.get(name, _UNKNOWN) is self._origin.get(name, _UNKNOWN)
            else:
                replaced = known != versions[name]
            if replaced:
                taken[name] = value
        self._got.update(versions)
        return taken

    def have(self, versions: Versions) -> None:
        """These are here, by V4."""
        self._got.update(versions)

    def unknown_to_parent(self, names: Names) -> dict[str, Any]:
        """Return those that are not the parent's: a child did not begin with them, and did not get them."""
        return {name: value for name, value in names.items() if name not in self._origin and name not in self._got}

    def inherit(self, names: Names) -> None:
        """In a fork of the parent, which has all its names."""
        self._origin = dict(names)
        self._got = {name: sent.version for name, sent in self._sent.items()}


class _Sent:
    """A value as it was when it was last sent, to tell whether it is another one now."""

    __slots__ = ("version", "_noted", "_mark")

    def __init__(self, value: object, mark: object, *, noted: bool = False) -> None:
        self.version = next(_versions)
        self._noted = value if noted else _UNKNOWN  # itself: it may be large, and to look into it would take long
        self._mark = mark

    def is_still(self, value: object, mark: object) -> bool:
        """Whether nothing has changed; a value that was only noted is looked into from now on."""
        if self._noted is not _UNKNOWN:
            same, self._noted, self._mark = self._noted is value, _UNKNOWN, mark
            return same
        return mark is not None and (self._mark is mark or (type(mark) is tuple and self._mark == mark))

    def is_noted(self, value: object) -> bool:
        return self._noted is value


def _mark(value: object) -> object:
    """What tells an object and its content from others; None if nothing does."""
    if isinstance(value, FunctionType | type | ModuleType):
        return ref(value)  # the same reference for the same object
    try:
        return id(value), hash(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    except Exception as refusal:  # the value's own reduction: anything may be raised
        from procflow.start.interrupted import of_a_signal

        if of_a_signal(refusal):
            raise
        return None
