"""`catalign baseline`: one command per method, and the set-up of their environments."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from catalign.baselines.methods import METHODS, Method

app = typer.Typer(
    no_args_is_help=True,
    help="Train and evaluate a baseline of another library on exactly our windows; setup first, once.",
)
Environment = Annotated[
    Path | None,
    typer.Option(help="Where the environments lie; default $CATALIGN_BASELINES or the user's cache folder."),
]


@app.command()
def setup(
    environment: Environment = None,
    library: Annotated[
        Literal["rectools", "cornac"] | None, typer.Option(help="Only this one's; cornac is for gru4rec alone.")
    ] = None,
) -> None:
    """Make the environments that the baselines run in: about 1 GB each, a few minutes; what is there is kept.

    catalign baseline setup
    """
    from catalign.baselines.environment import environments_folder, set_up
    from catalign.baselines.methods import LIBRARIES
    from catalign.progress import console

    folder = environments_folder(environment)
    with console.status(f"making environments in {folder} ..."):
        made = set_up(folder, LIBRARIES if library is None else (library,))
    console.print(f"{folder}: {'made ' + ' and '.join(made) if made else 'nothing to do'}", markup=False)


def command_of(method: Method) -> Callable[..., None]:
    """The command of a method."""

    def run(
        dataset: Annotated[Path, typer.Option(help="Dataset folder.")],
        output: Annotated[Path, typer.Option(help="The run folder to make.")],
        trials: Annotated[int, typer.Option(min=1, help="Points of the method's grid that are tried.")] = 6,
        seconds: Annotated[
            float | None, typer.Option(min=1, help="Limit for all trials; one in progress ends its epoch.")
        ] = None,
        epochs: Annotated[int, typer.Option(min=1, help="Most epochs of one trial.")] = 100,
        patience: Annotated[int, typer.Option(min=1, help="Epochs without a better validation score.")] = 3,
        seed: Annotated[int, typer.Option(help="Of weights, batches and drawn trials.")] = 0,
        split: Annotated[Literal["test", "valid"], typer.Option(help="Which windows are predicted.")] = "test",
        exclude_history: Annotated[
            bool, typer.Option("--exclude-history", help="Never recommend what is in the history.")
        ] = False,
        environment: Environment = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
        json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
    ) -> None:
        from catalign.baselines.environment import environments_folder
        from catalign.baselines.run import Budget, run_baseline
        from catalign.evaluation.table import as_json, as_rich
        from catalign.progress import results

        budget = Budget(trials=trials, seconds=seconds, epochs=epochs, patience=patience)
        rows = run_baseline(
            method.name, dataset, output, environments_folder(environment),
            split=split, budget=budget, seed=seed, exclude_history=exclude_history, overwrite=overwrite,
        )  # fmt: skip
        if json:
            typer.echo(as_json(rows))
        else:
            results.print(as_rich(rows))

    run.__doc__ = (
        f"{method.what}\n\nTrained on the training interactions; hyper-parameters and epoch are chosen by NDCG@10 on "
        "all validation windows; the full catalogue is ranked.\n\n"
        f"catalign baseline {method.name} --dataset ds --output runs/{method.name}"
    )
    return run


for _method in METHODS.values():
    app.command(_method.name)(command_of(_method))
