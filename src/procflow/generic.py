"""`typing.Generic` as far as it is needed at run time: importing typing would cost a child 8 ms."""

from __future__ import annotations

from types import GenericAlias

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Generic"]


class Generic:
    """Makes its subclasses subscriptable, and that is all. Type checkers are shown the real one."""

    __slots__ = ()

    def __class_getitem__(cls, item: Any) -> Any:
        return cls if cls is Generic else GenericAlias(cls, item)
