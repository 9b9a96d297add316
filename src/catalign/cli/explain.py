"""`catalign explain`."""

import json as json_module
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalign.cli.options import Score
from catalign.errors import UserError

if TYPE_CHECKING:
    from catalign.recommender import Recommender

NEIGHBOURS = 3


def explain(
    run: Annotated[Path | None, typer.Argument(help="A run folder made by catalign train.")] = None,
    history: Annotated[
        list[str] | None, typer.Option(help="An item's id or title; repeat it, the oldest first.")
    ] = None,
    item: Annotated[
        str | None, typer.Option(help="The item to explain, by id or title; default what is recommended first.")
    ] = None,
    instead_of: Annotated[str | None, typer.Option(help="Why not this one: compare the item with it.")] = None,
    reason: Annotated[
        bool, typer.Option("--reason", help="Let an instruction-tuned model write a reason, marked as generated.")
    ] = False,
    before: Annotated[Path | None, typer.Option(help="What a stage changed: the run before it.")] = None,
    after: Annotated[Path | None, typer.Option(help="The run after it, of the same catalogue.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="With --before: items of either list.")] = 10,
    faithfulness: Annotated[
        bool,
        typer.Option("--faithfulness", help="Measure how the explained score falls when history items are deleted."),
    ] = False,
    windows: Annotated[int, typer.Option(min=1, help="With --faithfulness: test windows drawn.")] = 200,
    deletions: Annotated[int, typer.Option(min=1, help="With --faithfulness: most items deleted.")] = 4,
    seed: Annotated[int, typer.Option(help="With --faithfulness: of the draw.")] = 0,
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset folder; default the one the run was trained on.")
    ] = None,
    score: Score = "valid",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why an item was recommended: how much each item of the history moved its score.

    catalign explain runs/msl --history "Title A" --history "Title B" --item "Title C" --instead-of "Title D"
    """
    from catalign.recommender import Recommender

    if (before is None) != (after is None):
        raise UserError("--before and --after go together", where="catalign explain", mend="name both runs")
    if (run is None) == (before is None):
        raise UserError("no run given" if run is None else "a run and --before given", where="catalign explain",
                        mend="name one run, or --before RUN --after RUN")  # fmt: skip
    if faithfulness == bool(history):
        raise UserError("no history given" if not history else "a history and --faithfulness given",
                        where="catalign explain", mend="pass --history TITLE_OR_ID ..., or --faithfulness")  # fmt: skip
    if before is not None and (faithfulness or item is not None or instead_of is not None or reason):
        raise UserError("--item, --instead-of, --reason and --faithfulness explain one run", where="--before")
    if faithfulness and (item is not None or instead_of is not None or reason):
        raise UserError("--item, --instead-of and --reason explain one history", where="--faithfulness")
    if before is not None and after is not None:
        found: Any = _moves(Recommender.load(before), Recommender.load(after), history or [], k, score)
        show: Callable[[Any], None] = _print_moves
    elif run is not None and faithfulness:
        found = _faithfulness(Recommender.load(run), dataset, windows, deletions, seed, score)
        show = _print_faithfulness
    elif run is not None:
        found = _explanation(Recommender.load(run), history or [], item, instead_of, dataset, reason, score)
        show = _print_explanation
    if json:
        typer.echo(json_module.dumps(found, ensure_ascii=False, indent=2))
    else:
        show(found)


def _explanation(
    recommender: "Recommender", history: list[str], item: str | None, instead_of: str | None, dataset: Path | None,
    reason: bool, score: str,
) -> dict[str, Any]:  # fmt: skip
    """Contributions, near training windows and perhaps a reason, as JSON takes them."""
    from catalign.explain.neighbours import nearest_windows
    from catalign.explain.reason import written_reason

    if item is None:
        item = recommender.recommend(history, 1, score=score)[0].item_id
    explanation = recommender.explain(history, item, instead_of=instead_of, score=score)
    found: dict[str, Any] = {**asdict(explanation), "training_windows": None}
    folder = dataset or recommender.run.recipe.dataset
    if dataset is not None or folder.is_dir():
        catalogue = recommender.catalogue
        near = nearest_windows(
            _dataset_of(recommender, folder).windows("train"), recommender.run.prompter.trie,
            recommender.indices(history), catalogue.index_of(explanation.item_id), NEIGHBOURS,
        )  # fmt: skip
        found["training_windows"] = [
            {"shared": row["shared"], "history": [catalogue.titles[seen] for seen in row["history"]]}
            for row in near.to_dicts()
        ]
    if reason:
        found["generated_reason"] = written_reason(recommender.run.model, explanation)
    return found


def _dataset_of(recommender: "Recommender", folder: Path) -> Any:
    """The dataset, which must have the catalogue of the run."""
    from catalign.catalogue.catalogue import Catalogue
    from catalign.data.dataset import load_dataset

    data = load_dataset(folder)
    if Catalogue.from_frame(data.items).digest != recommender.catalogue.digest:
        raise UserError("has another catalogue than the run", where=folder, mend="pass its dataset with --dataset")
    return data


def _print_explanation(found: dict[str, Any]) -> None:
    from catalign.progress import results

    def line(text: str) -> None:
        results.print(text, markup=False, soft_wrap=True)

    line(f"{found['title']}  ({found['item_id']}, log-probability {found['log_probability']:.3f})")
    if found["instead_of"] is not None:
        line(f"ahead of {found['instead_of']} by {found['margin']:+.3f}; for it rather than the other:")
    else:
        line("Without this item of the history its log-probability would be lower by:")
    name = "moved" if found["instead_of"] is None else "contrast"
    for part in sorted(found["contributions"], key=lambda part: -part[name]):
        line(f"  {part[name]:+8.3f}  {part['title']}  ({part['item_id']})")
    if found["training_windows"]:
        line("Nearest in training, people who chose it after:")
        for window in found["training_windows"]:
            line(f"  {window['shared']} in common: {'; '.join(window['history'])}")
    elif found["training_windows"] is not None:
        line("Nobody in training chose it after any of these.")
    if "generated_reason" in found:
        line(f"Generated by the model, not evidence: {found['generated_reason']}")


def _moves(before: "Recommender", after: "Recommender", history: list[str], k: int, score: str) -> list[dict[str, Any]]:
    """What the stage between two runs changed."""
    from catalign.explain.stages import DEPTH, compare_stages

    if before.catalogue.digest != after.catalogue.digest:
        raise UserError("the two runs have different catalogues", where="--after", mend="compare runs of one dataset")
    beams = min(max(DEPTH, k), len(after.catalogue))
    first, second = (run.search(beams=beams, score=score, exclude_history=True) for run in (before, after))
    return [vars(move) for move in compare_stages(first, second, after.catalogue, after.indices(history), k)]


def _print_moves(moves: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from catalign.progress import results

    table = Table("before", "after", "log-probability", "moved", "title", box=None)
    for move in moves:
        ranks = ["-" if move[name] is None else str(move[name]) for name in ("rank_before", "rank_after")]
        first, second = move["log_probability_before"], move["log_probability_after"]
        table.add_row(*ranks, f"{first:.2f} to {second:.2f}", f"{second - first:+.2f}", move["title"])
    results.print(table)


def _faithfulness(
    recommender: "Recommender", dataset: Path | None, windows: int, deletions: int, seed: int,
    score: str,
) -> dict[str, Any]:  # fmt: skip
    from catalign.explain.faithfulness import measure_faithfulness

    data = _dataset_of(recommender, dataset or recommender.run.recipe.dataset)
    search = recommender.search(beams=10, score=score)
    return measure_faithfulness(search, data.windows("test"), count=windows, deletions=deletions, seed=seed)


def _print_faithfulness(found: dict[str, Any]) -> None:
    from rich.table import Table

    from catalign.progress import results

    def shown(cell: dict[str, Any]) -> str:
        return f"{cell['mean']:.3f} [{cell['ci95'][0]:.3f}, {cell['ci95'][1]:.3f}]"

    results.print(
        f"{found['windows']} windows of {found['shown_items']:.1f} items; the item recommended first, after deleting"
    )
    columns = [f"{step + 1}" for step in range(len(found["orders"]["attributed"]["drop"]))]
    for quantity, title in (("drop", "fall of its log-probability"), ("still_first", "share that is still first")):
        table = Table(title, *columns, box=None)
        for name, order in found["orders"].items():
            table.add_row(name, *map(shown, order[quantity]))
        results.print(table)
    table = Table("attributed falls more than", *columns, box=None)
    for name, cells in found["more_than"].items():
        table.add_row(name, *map(shown, cells))
    results.print(table)
