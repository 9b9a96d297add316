"""`catalign model`: make the embedded model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="Make language models that need no download.", no_args_is_help=True)


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

    The result is an ordinary Hugging Face folder. Histories of the validation and test splits are never read.

    catalign model init --dataset ds --output lm --preset small
    """
    from catalign.training.warmup import init_model

    summary = init_model(
        dataset, output, preset=preset, phrases=phrases, epochs=epochs, titles_only=titles_only, seed=seed,
        overwrite=overwrite,
    )  # fmt: skip
    typer.echo(f"{output}: {summary['parameters']:,} parameters, {summary['vocabulary']:,} tokens")
