"""Parent and shutdown: the user's program forks while a pool works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.outside import Program


@pytest.mark.parametrize("ends", ["sys.exit", "os._exit"])
def test_a_fork_of_the_program_is_refused_the_pool_and_harms_nothing(ends: str, method: str, tmp_path: Path) -> None:
    with Program("fork_while_working", method, tmp_path, ends) as program:
        assert program.wait_end() == 0, program.stderr
