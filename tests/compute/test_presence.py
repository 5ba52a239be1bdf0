"""Names of processes: taken by one on this machine, which lives, or does no more."""

from uuid import uuid4

from convscope.compute import is_present, present
from tests.compute.names import name_of_a_dead_process, taken_elsewhere


def test_a_name_is_present_as_long_as_its_process_lives() -> None:
    name = uuid4().hex
    assert is_present(name) is None  # of another machine, for all that is known
    with taken_elsewhere(name) as other:
        assert is_present(name) is True
        other.communicate("\n")
    assert is_present(name) is None
    assert is_present(name_of_a_dead_process()) is False


def test_a_name_of_this_process() -> None:
    name = uuid4().hex
    with present(name):
        assert is_present(name) is True
    assert is_present(name) is None
