"""What sharing saves on a GPU, with a model of real size: `python -m benchmarks.gpu --json FILE`; 8 minutes at most.

The model has the shape of Llama-3.2-1B and random weights, the catalogue is drawn, so nothing is downloaded. Four
parts: a training step of LML, one of MSL, a top-10 search, a step of DMPO. Each is the published flow
(`benchmarks/published.py`) against ours: first the same results in float32, then both in turn until the part's share
of the time is used. Training computes as `catalign train` does on a GPU (bfloat16 autocast, weights in float32),
search as `catalign evaluate` does (float32).

What goes through the model at once begins at a size that suits each flow and is halved until it fits. Rows of the
published training step are made and on the device before its clock starts, masks among them; ours are packed and moved
within the time, as in training. Memory is what a step takes beyond what was there before it.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks import preference_step, published, search
from benchmarks.gpu_shop import FULL, QUICK, Sizes, make_setting, trie_shape
from benchmarks.setting import Setting
from benchmarks.training_step import TOLERANCE, Step, backward, batch_shape, differences, first_batch, gradients, moved
from catalign.cli.main import quieten_libraries
from catalign.files import write_json
from catalign.model.language_model import LanguageModel
from catalign.training.batches import BatchMaker
from catalign.training.flops import Peak, StepCost, find_peak, matrices
from catalign.training.memory import free_memory, is_out_of_memory
from catalign.training.module import Objective, TrainingModule
from catalign.training.rows import choose_row_tokens
from catalign.version import version

BFLOAT16_LOSS, BFLOAT16_GRADIENT = 0.02, 0.1  # relative; the gradient's by the norm of all weights together
BEAMS = 10
Result = dict[str, Any]


def autocast(device: torch.device, enabled: bool = True) -> AbstractContextManager[Any]:
    """bfloat16, as in training on a GPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def our_step(setting: Setting, batches: BatchMaker, numbers: list[int], objective: Objective, at_once: int) -> Step:
    """The step as `catalign train` does it, at most so many windows in a pass."""
    module = TrainingModule(setting.model, objective, setting.prompter.trie).to(setting.model.device)

    def step() -> tuple[float, list[torch.Tensor]]:
        passes = [batches(numbers[start : start + at_once]) for start in range(0, len(numbers), at_once)]
        items = sum(int(module.count_items(batch)) for batch in passes)
        total = torch.zeros((), device=setting.model.device)
        for batch in passes:
            loss = module(num_items_in_batch=items, **moved(batch, setting))["loss"]
            backward(loss)
            total += loss.detach()
        return float(total), gradients(setting)

    return step


def published_step(setting: Setting, numbers: list[int], objective: Objective, at_once: int) -> Step:
    """Padded rows of like length, at most so many in a pass, on the device before the clock starts."""
    model, trie, prompter = setting.model, setting.prompter.trie, setting.prompter
    padding = int(model.tokenizer.pad_token_id)
    collate = published.Collator(published.AllowedTokens(trie, padding), len(model.head_VH), padding)
    prompts = [prompter.prompt(setting.train.histories[number]) for number in numbers]
    titles = published.title_tokens(trie, trie.item_title[setting.train.target_S[numbers]])
    length = [len(prompt) + len(title) for prompt, title in zip(prompts, titles, strict=True)]
    order = np.argsort(length, kind="stable")[::-1]
    passes: list[published.PaddedRows] = []
    for start in range(0, len(order), at_once):
        chosen = order[start : start + at_once]
        some = [prompts[row] for row in chosen], [titles[row] for row in chosen]
        rows = published.pad_right(*some, padding) if objective.name == "lml" else collate(*some)
        passes.append(rows.to(model.device))

    def loss_of(rows: published.PaddedRows) -> torch.Tensor:
        if isinstance(rows, published.TrainingRows):
            return published.masked_loss(model, rows)
        return published.language_loss(model, rows)

    def step() -> tuple[float, list[torch.Tensor]]:
        total = torch.zeros((), device=model.device)
        for rows in passes:
            loss = loss_of(rows) / sum(map(len, titles))
            backward(loss)
            total += loss.detach()
        return float(total), gradients(setting)

    return step


@dataclass
class Side:
    """One way of doing a job.

    Attributes:
        make: the job, given how much may go through the model at once.
        at_once: what is tried first; afterwards what fits, 0 where nothing does.
        operations: that the model needs for it.
        run: the job, once it fits.
        seconds, peaks: of every round; bytes beyond what was there before, of a GPU.
    """

    make: Callable[[int], Callable[[], object]]
    at_once: int
    operations: float = 0.0
    run: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        self.seconds: list[float] = []
        self.peaks: list[int] = []

    def fit(self, within: Callable[[], AbstractContextManager[Any]]) -> None:
        """Halve what goes through at once until a first run, which is not counted, does not run out of memory."""
        while self.at_once > 0:
            try:
                self.run = self.make(self.at_once)
                with within():
                    self.run()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return
            self.run = None
            free_memory()
            self.at_once //= 2

    def measure(self, device: torch.device) -> None:
        """One round."""
        if self.run is None:
            return
        held = 0
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            held = torch.cuda.memory_allocated(device)
        started = time.perf_counter()
        self.run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            self.peaks.append(torch.cuda.max_memory_allocated(device) - held)
        self.seconds.append(time.perf_counter() - started)

    def result(self, peak: Peak) -> Result | str:
        """Medians, extremes and utilisation."""
        if self.run is None:
            return "does not fit"
        middle = statistics.median(self.seconds)
        return {
            "seconds": round(middle, 5),
            "seconds_range": [round(min(self.seconds), 5), round(max(self.seconds), 5)],
            "at_once": self.at_once,
            "peak_gb": round(max(self.peaks) / 1e9, 3) if self.peaks else None,
            "utilisation": round(self.operations / middle / peak.flops, 4),
        }


def compare(
    sides: dict[str, Side], sizes: Sizes, started: float, device: torch.device, peak: Peak, *, half: bool
) -> Result:
    """Run all sides in turn until the time since `started` is used up; ratios are published over the others."""

    def within() -> AbstractContextManager[Any]:
        return autocast(device, half)

    for side in sides.values():
        side.fit(within)
    rounds = 0
    while rounds < sizes.rounds and (rounds == 0 or time.monotonic() - started < sizes.seconds):
        with within():
            for side in sides.values():
                side.measure(device)
        rounds += 1
    theirs = sides["published"].seconds
    ratios = {
        name: [their / our for their, our in zip(theirs, side.seconds, strict=False)]
        for name, side in sides.items()
        if name != "published"
    }
    return {
        "ratio": {name: round(statistics.median(each), 2) if each else None for name, each in ratios.items()},
        "ratio_range": {name: [round(min(each), 2), round(max(each), 2)] for name, each in ratios.items() if each},
        "rounds": rounds,
        **{name: side.result(peak) for name, side in sides.items()},
        "peak": asdict(peak),
    }


def norm_differences(theirs: tuple[float, list[torch.Tensor]], mine: tuple[float, list[torch.Tensor]]) -> Result:
    """Relative difference of the losses, and of the gradients of all weights as one vector."""
    pairs = list(zip(theirs[1], mine[1], strict=True))
    apart = sum(float((their - my).float().square().sum()) for their, my in pairs)
    size = sum(float(their.float().square().sum()) for their, _ in pairs)
    return {"loss": abs(theirs[0] - mine[0]) / abs(theirs[0]), "gradient": (apart / size) ** 0.5}


def is_same(found: Result, half: Result) -> bool:
    """Whether all differences are within what is asked for."""
    exact = all(each["loss"] <= TOLERANCE and each["gradient"] <= TOLERANCE for each in found.values())
    return exact and half["loss"] <= BFLOAT16_LOSS and half["gradient"] <= BFLOAT16_GRADIENT


def training_part(setting: Setting, sizes: Sizes, objective: Objective) -> Result:
    """A step of LML or MSL; before that the same of a few windows, also in plain rows and in bfloat16."""
    started, device = time.monotonic(), setting.model.device
    maker = BatchMaker(setting.train, setting.prompter, scores=objective.scores)
    plain = BatchMaker(setting.train, setting.prompter, scores=objective.scores, share=False)
    few, numbers = first_batch(setting, sizes.checked), first_batch(setting, sizes.windows)
    maker.row_tokens = choose_row_tokens(maker, [numbers], setting.model)

    theirs = published_step(setting, few, objective, sizes.checked)
    expected = theirs()
    found: Result = {
        "ours": differences(expected, our_step(setting, maker, few, objective, len(few))()),
        "plain rows": differences(expected, our_step(setting, plain, few, objective, len(few))()),
    }
    del expected  # as large as the model
    with autocast(device):
        half = norm_differences(theirs(), our_step(setting, maker, few, objective, len(few))())
    del theirs

    cost, packed = StepCost.of(setting.model), maker(numbers)
    plain.scores = "vocabulary"  # what the published flow needs: each window by itself, against every token
    sides = {
        "published": Side(
            lambda size: published_step(setting, numbers, objective, size), sizes.rows, cost.of_batch(plain(numbers))
        ),
        "ours": Side(
            lambda size: our_step(setting, maker, numbers, objective, size), sizes.windows, cost.of_batch(packed)
        ),
    }
    result = compare(sides, sizes, started, device, find_peak(device, torch.bfloat16), half=True)
    shape = {"windows": sizes.windows, "row_tokens": maker.row_tokens, **batch_shape(packed)}
    return {"same": is_same(found, half), "difference": {**found, "bfloat16": half}, **result, "shape": shape}


def search_part(setting: Setting, sizes: Sizes) -> Result:
    """Top-10 search among the children, in float32; before that the scores of a few users against the exact ones."""
    started, device = time.monotonic(), setting.model.device
    few = setting.long_histories(sizes.checked)
    theirs, mine = (run() for run in search.flows(setting, few, BEAMS, "valid"))
    error = {
        "published": search.largest_error(setting, few, theirs, "valid"),
        "ours": search.largest_error(setting, few, mine, "valid"),
    }
    best = float((theirs[0][:, 0] == mine[0][:, 0]).mean())

    histories = setting.long_histories(sizes.searches)

    def side(which: int) -> Side:
        def make(users: int) -> Callable[[], object]:
            parts = [histories[start : start + users] for start in range(0, len(histories), users)]
            runs = [search.flows(setting, part, BEAMS, "valid")[which] for part in parts]
            return lambda: [run() for run in runs]

        return Side(make, sizes.searches)

    sides = {"published": side(0), "ours": side(1)}
    weights = sum(size for size, _ in matrices(setting.model))
    tokens = count_tokens(setting.model, {name: side.make(sizes.searches) for name, side in sides.items()})
    for name, each in sides.items():
        each.operations = 2.0 * weights * tokens[name]
    result = compare(sides, sizes, started, device, find_peak(device, torch.float32), half=False)
    return {
        "same": error["ours"] <= search.TOLERANCE,
        "difference": {"score": error, "same_top1": round(best, 3)},
        **result,
        "shape": {"users": sizes.searches, "beams": BEAMS, "tokens_through_the_model": tokens},
    }


def count_tokens(model: LanguageModel, jobs: dict[str, Callable[[], object]]) -> dict[str, int]:
    """Tokens, padding included, that each job sends through the trunk."""
    counted = dict.fromkeys(jobs, 0)
    for name, job in jobs.items():

        def count(_: object, __: object, given: dict[str, Any], name: str = name) -> None:
            counted[name] += given["input_ids"].numel()

        hook = model.decoder.register_forward_pre_hook(count, with_kwargs=True)
        try:
            job()
        finally:
            hook.remove()
    return counted


def preference_part(setting: Setting, sizes: Sizes) -> Result:
    """A step of DMPO on an adapter, the reference taken in the step and known before; the same of a few examples first.

    The published flow runs k + 1 padded rows for every example twice, with gradient and for the reference.
    """
    started, device = time.monotonic(), setting.model.device
    options = argparse.Namespace(
        examples=sizes.checked, negatives=sizes.negatives, score="full", batching="by-user", row_tokens=512,
        memory=1e6,
    )  # fmt: skip
    policy = preference_step.with_adapter(setting)
    rows = sizes.checked * (sizes.negatives + 1)
    theirs = preference_step.published_step(policy, options, rows)
    mine = preference_step.our_step(policy, options, cached=False)
    found: Result = {"ours": differences(theirs(), mine())}
    with autocast(device):
        half = norm_differences(theirs(), mine())

    options.examples = sizes.examples
    numbers, batches = first_batch(policy, sizes.examples), preference_step.make_batches(policy, options)
    options.row_tokens = batches.row_tokens = choose_row_tokens(batches, [numbers], policy.model)
    cost, forward = StepCost.of(policy.model), forward_cost(policy.model)
    packed = batches(numbers)
    batches.maker.share = False
    single = batches(numbers)
    sides = {
        "published": Side(
            lambda size: preference_step.published_step(policy, options, size),
            max(sizes.rows, sizes.negatives + 1),
            cost.of_batch(single) + forward.of_batch(single),
        ),
        "ours": Side(
            lambda _: preference_step.our_step(policy, options, cached=False), 1,
            cost.of_batch(packed) + forward.of_batch(packed),
        ),
        "ours cached": Side(
            lambda _: preference_step.our_step(policy, options, cached=True), 1, cost.of_batch(packed)
        ),
    }  # fmt: skip
    result = compare(sides, sizes, started, device, find_peak(device, torch.bfloat16), half=True)
    shape = {"examples": sizes.examples, "negatives": sizes.negatives, "row_tokens": options.row_tokens}
    return {
        "same": is_same(found, half),
        "difference": {**found, "bfloat16": half},
        **result,
        "shape": {**shape, **batch_shape(packed)},
    }


def forward_cost(model: LanguageModel) -> StepCost:
    """The cost of a forward pass alone."""
    step = StepCost.of(model)
    return replace(
        step,
        per_token=float(sum(2 * size for size, _ in matrices(model))),
        per_pair=step.per_pair / 3,
        per_entry=2.0 * model.head_VH.shape[1],
    )


def measure(sizes: Sizes, device: torch.device) -> Result:
    """All parts; the adapter of the last changes the model."""
    started = time.monotonic()
    setting = make_setting(sizes, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    parts: dict[str, Callable[[], Result]] = {
        "lml step": lambda: training_part(setting, sizes, Objective(name="lml", denominator="all")),
        "msl step": lambda: training_part(setting, sizes, Objective(name="msl", denominator="all")),
        "search": lambda: search_part(setting, sizes),
        "preference step": lambda: preference_part(setting, sizes),
    }
    result: Result = {
        "catalign": version(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "device": name,
        "sizes": asdict(sizes),
        "shape": {**setting.describe(), **trie_shape(setting.prompter.trie)},
    }
    print(f"{name}, {result['shape']['parameters']:,} parameters; ready after {time.monotonic() - started:.0f} s")
    for part, run in parts.items():
        result[part] = run()
        free_memory()
        print_part(part, result[part])
    result["same"] = all(result[part]["same"] for part in parts)
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


def print_part(part: str, result: Result) -> None:
    """A few lines."""
    print(f"\n{part}: {'same results' if result['same'] else 'THE RESULTS DIFFER'}, {result['rounds']} rounds")
    for name, side in result.items():
        if side == "does not fit":
            print(f"  {name:12} does not fit")
        elif isinstance(side, dict) and "seconds" in side:
            memory = "" if side["peak_gb"] is None else f", {side['peak_gb']:.1f} GB"
            print(f"  {name:12} {side['seconds']:.4f} s{memory}, utilisation {side['utilisation']:.1%}")
    for name, ratio in result["ratio"].items():
        if ratio is not None:
            low, high = result["ratio_range"][name]
            print(f"  published / {name}: {ratio:.2f} ({low:.2f} to {high:.2f})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu with --quick alone")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round: whether everything runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found here")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cpu" and not options.quick:
        parser.exit(2, "benchmarks.gpu: a processor is too slow for this; try --quick --device cpu\n")
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "benchmarks.gpu: torch sees no CUDA GPU here; try --quick --device cpu\n")
    quieten_libraries()
    result = measure(QUICK if options.quick else FULL, device)
    if options.json is not None:
        write_json(options.json, result)
    print(f"\n{result['seconds']:.0f} s in all")
    return 0 if result["same"] else 1


if __name__ == "__main__":
    sys.exit(main())
