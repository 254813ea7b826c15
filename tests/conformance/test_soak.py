"""What ``make soak`` calls a leak."""

import pytest
from tests.soak import MORE_CONNECTIONS, MORE_MEMORY, Held

FIRST = Held(memory=80 * 2**20, descriptors=15, connections=1)


@pytest.mark.parametrize(
    ("later", "leaked"),
    [
        (FIRST, False),
        (Held(FIRST.memory - 1, 10, 0), False),
        (Held(FIRST.memory + MORE_MEMORY, 15 + MORE_CONNECTIONS, 1 + MORE_CONNECTIONS), False),
        (Held(FIRST.memory + MORE_MEMORY + 1, 15, 1), True),
        (Held(FIRST.memory, 15 + MORE_CONNECTIONS + 1, 1), True),
        (Held(FIRST.memory, 15, 1 + MORE_CONNECTIONS + 1), True),
    ],
)
def test_what_a_server_holds_may_not_grow(later: Held, leaked: bool) -> None:
    """Memory, descriptors and connections are flat from the first round on, within what a pool may still open."""
    assert later.leaked_since(FIRST) is leaked
