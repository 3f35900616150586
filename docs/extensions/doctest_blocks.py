"""Show the examples of docstrings as code: without a fence around them, Markdown takes `>>>` for a quotation."""

from __future__ import annotations

import re
from typing import Any

import griffe

# A line with a prompt, and all the lines up to an empty one.
EXAMPLE = re.compile(r"^( *)>>> .*(?:\n *\S.*)*", re.MULTILINE)


def fenced(text: str) -> str:
    """Put a fence around each run of examples."""
    return EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", text)


class DoctestBlocks(griffe.Extension):
    """Named in mkdocs.yml."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Fence the examples of each docstring that is read, but those of an `Examples:` section: these are known."""
        if obj.docstring and ">>> " in obj.docstring.value and "Examples:\n" not in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
