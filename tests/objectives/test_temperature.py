"""The adaptive temperature."""

import logging
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.objectives import AdaptiveTemperature, adaptive_temperature


def test_formula_by_hand() -> None:
    # D = 3, N eta = e, so C = 1 and tau* = (3 + sqrt(9 - 2 * 4)) / 2
    valid_count = 4 * math.e
    assert adaptive_temperature(5, 2, 4, valid_count, 0.25) == pytest.approx(2.0)
    assert adaptive_temperature(5, 2, 400, valid_count, 0.25) == pytest.approx(1.5)  # root of a negative counts as 0
    assert adaptive_temperature(0, 2, 4, valid_count, 0.25) == 1.5
    assert adaptive_temperature(50, 2, 4, valid_count, 0.25) == 5.0


def test_temperature_stays_where_eta_cannot_be_reached(caplog: pytest.LogCaptureFixture) -> None:
    assert adaptive_temperature(5, 2, 4, 4, 0.25) is None
    module = AdaptiveTemperature(first=2.5)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            module.observe(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0]))
            module.step()
    assert float(module.temperature) == 2.5
    assert len(caplog.records) == 1
    module.observe(torch.randn(50), torch.tensor([0]))
    module.step()
    assert float(module.temperature) != 2.5  # and moves again when it can


@settings(deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 5), min_size=1, max_size=5), st.sampled_from([0.0, 1e4]))
def test_micro_batches_do_not_change_the_temperature(seed: int, sizes: list[int], shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(5, 30, (sum(sizes),), generator=generator)  # examples may differ in their valid tokens
    starts = counts.cumsum(0) - counts
    logits = torch.randn(int(counts.sum()), generator=generator, dtype=torch.float64) * 3 + shift
    gold = starts + (torch.rand(len(counts), generator=generator) * counts).long()
    whole, parts = (AdaptiveTemperature(momentum=1.0, low=0.0, high=1e6).double() for _ in range(2))
    whole.observe(logits, gold)
    whole.step()
    for starts_n, counts_n, gold_n in zip(starts.split(sizes), counts.split(sizes), gold.split(sizes), strict=True):
        begin, end = int(starts_n[0]), int(starts_n[-1] + counts_n[-1])
        parts.observe(logits[begin:end], gold_n - begin)
        assert float(parts.temperature) == 1.5  # nothing moves before the step
    parts.step()
    expected = adaptive_temperature(
        float(logits[gold].mean()), float(logits.mean()), float(logits.var()), len(logits) / len(counts), 0.25, 0.0, 1e6
    )
    assert float(whole.temperature) == pytest.approx(expected, abs=1e-9)
    assert float(parts.temperature) == pytest.approx(expected, abs=1e-9)


def test_a_step_without_observations_changes_nothing() -> None:
    module = AdaptiveTemperature()
    module.observe(torch.zeros(0), torch.zeros(0, dtype=torch.long))
    module.step()
    assert float(module.temperature) == 1.5


def test_observations_are_forgotten_after_a_step() -> None:
    once, twice = AdaptiveTemperature(momentum=1.0), AdaptiveTemperature(momentum=1.0)
    old, new = torch.linspace(-9, 9, 60), torch.linspace(-1, 2, 60)
    twice.observe(old, torch.tensor([59]))
    twice.step()
    for module in (once, twice):
        module.observe(new, torch.tensor([50]))
        module.step()
    assert float(once.temperature) == float(twice.temperature)


def test_temperature_is_saved_and_loaded() -> None:
    module = AdaptiveTemperature(first=3.25)
    other = AdaptiveTemperature()
    other.load_state_dict(module.state_dict())
    assert float(other.temperature) == 3.25
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_bfloat16_logits_are_widened() -> None:
    logits = torch.linspace(-4, 6, 64)
    low, high = AdaptiveTemperature(momentum=1.0), AdaptiveTemperature(momentum=1.0)
    low.observe(logits.bfloat16(), torch.tensor([40]))
    high.observe(logits, torch.tensor([40]))
    low.step(), high.step()
    assert float(low.temperature) == pytest.approx(float(high.temperature), rel=0.02)


def _process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    module = AdaptiveTemperature(momentum=1.0).double()
    logits = 10 * torch.linspace(-1, 1, 90, dtype=torch.float64) ** 9
    if rank == 0:  # the other process has seen no branching position
        module.observe(logits[:30], torch.tensor([15]))
        module.observe(logits[30:], torch.tensor([58, 59]))
    module.step()
    (Path(folder) / f"{rank}").write_text(repr(float(module.temperature)))
    torch.distributed.destroy_process_group()


def test_two_processes_step_together(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    logits = 10 * torch.linspace(-1, 1, 90, dtype=torch.float64) ** 9
    expected = adaptive_temperature(float(logits[[15, 88, 89]].mean()), float(logits.mean()), float(logits.var()), 30)
    assert expected is not None and 1.5 < expected < 5
    for rank in range(2):
        assert float((tmp_path / f"{rank}").read_text()) == pytest.approx(expected, abs=1e-10)
