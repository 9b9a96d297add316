"""`catalign quickstart`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer


def quickstart(
    output: Annotated[Path, typer.Option(help="The folder to make.")] = Path("demo"),
    data: Annotated[
        Path | None,
        typer.Option(
            help="Your own: a dataset folder (catalign data prepare makes one of any two tables), or a folder that "
            "holds interactions.csv (user_id, item_id, timestamp) and items.csv (item_id, title)."
        ),
    ] = None,
    preset: Annotated[
        Literal["tiny", "small", "base"], typer.Option(help="Size of the model: about 0.6, 4 or 31 million weights.")
    ] = "tiny",
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs of each objective.")] = 5,
    windows: Annotated[int, typer.Option(min=1, help="Test windows drawn.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier quickstart left.")] = False,
) -> None:
    """Show the whole path in a few minutes: data, a small language model, LML and MSL, results, recommendations.

    Without --data it generates a sample store; with it, it runs on yours.

    catalign quickstart --output demo
    """
    from catalign.evaluation.table import as_rich
    from catalign.progress import console, results
    from catalign.quickstart import QuickstartSettings
    from catalign.quickstart import quickstart as run

    settings = QuickstartSettings(preset=preset, epochs=epochs, windows=windows, seed=seed)
    rows, examples = run(output, data, settings, overwrite=overwrite)
    results.print()
    results.print(as_rich(rows))
    for example in examples:
        results.print("\nhistory:", " | ".join(example.history[-4:]), markup=False)
        for place, title in enumerate(example.recommended, 1):
            mark = "  <- what came next" if title == example.target else ""
            results.print(f"  {place}. {title}{mark}", markup=False, soft_wrap=True)
        if example.target not in example.recommended:
            results.print(f"  (what came next: {example.target})", markup=False)
    command = shlex.join(["catalign", "recommend", str(output / "msl"), "--history", examples[0].history[-1]])
    console.print(f"\nnext: {command}", markup=False, soft_wrap=True)
