"""Every target of the fuzzer on its seeds and a few damaged ones, the same with every run; `make fuzz` tries more."""

import random

import pytest
from fuzz_targets import TARGETS, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EVERY = pytest.mark.parametrize("name", TARGETS)


@EVERY
def test_the_seeds_pass(name: str) -> None:
    for seed in seeds(name):
        TARGETS[name](seed)


@EVERY
@given(data=st.data())
@settings(deadline=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck))
def test_damaged_seeds_are_read_or_told(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(seeds(name)))
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(seed))] * 2)))
    middle = data.draw(st.one_of(st.binary(max_size=8), st.text(max_size=4).map(str.encode), st.just(seed[start:end])))
    TARGETS[name](seed[:start] + middle + seed[end if data.draw(st.booleans()) else start :])


def test_a_lost_row_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The targets themselves: a reader that silently drops a row is caught."""
    import fuzz_targets

    whole = fuzz_targets.read_table
    monkeypatch.setattr(fuzz_targets, "read_table", lambda *parts, **how: whole(*parts, **how).head(1))
    with pytest.raises(AssertionError):
        fuzz_targets.csv(b"\x08user,item\nann,1\nbob,2\n")


def test_random_bytes() -> None:
    generator = random.Random(0)
    for target in TARGETS.values():
        for size in (0, 1, 2, 300):
            target(generator.randbytes(size))
