"""Length of a forest row: time of our training step against the counted work: `python -m benchmarks.rows --json`.

For each length the step of `benchmarks.training_step` is timed, all lengths in turn, and the work that
`training/rows.py` counts for it stands beside; both relative to their least. `chosen` is what training would take.
`profile` says which operations the step at that length spends its processor time on.
"""

import statistics
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.setting import Setting, make_parser, make_setting, parse_options, print_result
from benchmarks.timing import alternating_runs
from benchmarks.training_step import first_batch, our_step
from catalign.training.batches import BatchMaker
from catalign.training.rows import choose_row_tokens, count_work

OPERATIONS = 6  # of the profile


def operation_shares(setting: Setting, numbers: list[int], length: int) -> dict[str, float]:
    """Share of each of the largest operations in the processor time of one step, the packing among the rest."""
    step = our_step(setting, numbers, length)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as taken:
        step()
    events = sorted(taken.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return {event.key: round(event.self_cpu_time_total / total, 3) for event in events[:OPERATIONS]}


def measure(setting: Setting, windows: int, lengths: list[int], runs: int) -> dict[str, Any]:
    """Time and count every length."""
    numbers = first_batch(setting, windows)
    batches = BatchMaker(setting.train, setting.prompter, scores="valid")
    measured = alternating_runs([our_step(setting, numbers, length) for length in lengths], runs)
    seconds = [statistics.median(cpu) for _, cpu in measured]
    work = [count_work(batches, [numbers], setting.model, length) for length in lengths]
    chosen = choose_row_tokens(batches, [numbers], setting.model)
    return {
        "chosen": chosen,
        "cpu_seconds": {length: round(taken, 4) for length, taken in zip(lengths, seconds, strict=True)},
        "relative_time": {
            length: round(taken / min(seconds), 3) for length, taken in zip(lengths, seconds, strict=True)
        },
        "relative_work": {length: round(counted / min(work), 3) for length, counted in zip(lengths, work, strict=True)},
        "profile": operation_shares(setting, numbers, chosen),
        "shape": {"windows": windows, "runs": runs, **setting.describe()},
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--windows", type=int, help="windows of the step (128; 32 with --quick)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 320, 384, 512, 768, 1024])
    options = parse_options(parser)
    windows = options.windows or (32 if options.quick else 128)
    print_result(measure(make_setting(options), windows, options.lengths, options.pairs), options.json)


if __name__ == "__main__":
    main()
