"""`catalign model`: make the embedded model, give a run another catalogue, export it."""

import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from catalign.errors import UserError
from catalign.progress import console

app = typer.Typer(
    help="Make language models that need no download, give runs a new catalogue, export them.", no_args_is_help=True
)


@app.command()
def init(
    dataset: Annotated[Path, typer.Option(help="Dataset folder, from catalign data prepare.")],
    output: Annotated[Path, typer.Option(help="The Hugging Face folder to make.")],
    preset: Annotated[
        Literal["tiny", "small", "base"], typer.Option(help="Size: about 0.6, 4 or 31 million weights.")
    ] = "small",
    phrases: Annotated[
        bool, typer.Option("--phrases", help="Tokens may span words: faster, but knows less of new titles.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=0, help="Warm-up passes over titles and training histories.")] = 1,
    titles_only: Annotated[
        bool, typer.Option("--titles-only", help="Warm up on the titles alone: no one's history is read.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the order of the warm-up.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it is there.")] = False,
) -> None:
    """Make a small language model of a catalogue: a tokenizer of its titles and a Llama warmed up on its histories.

    The result is an ordinary Hugging Face folder. Histories of the validation and test splits are never read. The same
    command goes on with a warm-up that was interrupted.

    catalign model init --dataset ds --output lm --preset small
    """
    from catalign.training.callbacks import Interrupted
    from catalign.training.warmup import init_model

    try:
        summary = init_model(
            dataset, output, preset=preset, phrases=phrases, epochs=epochs, titles_only=titles_only, seed=seed,
            overwrite=overwrite,
        )  # fmt: skip
    except Interrupted as interruption:
        console.print(f"{interruption}; go on with the same command", markup=False)
        raise typer.Exit(128 + signal.SIGTERM) from interruption
    typer.echo(f"{output}: {summary['parameters']:,} parameters, {summary['vocabulary']:,} tokens")


@app.command()
def recatalogue(
    run: Annotated[Path, typer.Argument(help="A run folder made by catalign train.")],
    items: Annotated[Path | None, typer.Option(help="Table of every item of the new catalogue.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="Or a dataset folder: its items, as they are.")] = None,
    output: Annotated[Path | None, typer.Option(help="The run folder to make.")] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Change the run itself instead.")] = False,
    item_id: Annotated[str | None, typer.Option(help="Column of --items; default as the dataset's was.")] = None,
    title: Annotated[str | None, typer.Option(help="Column of --items; default as the dataset's was.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="Column of --items to keep; repeatable.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of --items; default utf-8.")] = None,
) -> None:
    """Let a trained run recommend from another catalogue: new items at once, removed ones no longer; nothing trains.

    catalign model recatalogue runs/msl --items items.csv --output runs/msl-november
    """
    from catalign.training.recatalogue import ItemColumns, recatalogue

    if (output is None) != in_place:
        raise UserError("where to?", where=run, mend="pass --output NEW_RUN, or --in-place, not both")
    named = {"item-id": item_id, "title": title, "metadata": metadata, "encoding": encoding}
    given = [name for name, value in named.items() if value]
    if items is None and given:
        raise UserError(f"--{given[0]} goes with --items")
    columns = ItemColumns(item_id, title, metadata or None, encoding or "utf-8")
    change = recatalogue(run, output, items=items, dataset=dataset, columns=columns)
    dropped = "".join(f"; {count:,} rows dropped: {reason}" for reason, count in change.dropped.items())
    typer.echo(
        f"{output or run}: {change.items:,} items, {change.added:,} new, {change.removed:,} gone, "
        f"{change.retitled:,} with another title{dropped}"
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder made by catalign train.")],
    output: Annotated[Path, typer.Option(help="The folder to make.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it is there.")] = False,
) -> None:
    """Write a run as a plain Hugging Face folder with a model card: adapter merged, no path of this machine.

    Other programs load it as a causal language model; catalign serve and Recommender.load take it as a run.

    catalign model export runs/msl --output exported
    """
    from catalign.export.folder import export_run

    exported = export_run(run, output, overwrite=overwrite)
    typer.echo(f"{output}: {exported.checkpoint}, {len(exported.catalogue):,} items; read {output / 'README.md'}")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A folder made by catalign model export.")],
    repository: Annotated[str, typer.Argument(help="Where to, on the Hugging Face hub: OWNER/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private if it is new.")] = False,
) -> None:
    """Upload an exported model, its catalogue among it, to the Hugging Face hub.

    catalign model push exported me/shop-recommender --private
    """
    from catalign.export.hub import push_folder

    typer.echo(push_folder(folder, repository, private=private))
