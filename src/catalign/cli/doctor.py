"""`catalign doctor`."""

from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Show versions, devices, number formats and why, and the optional parts that are missing."""
    from catalign.environment import examine, show
    from catalign.progress import results

    found = examine()
    if as_json:
        results.print_json(data=found)
    else:
        show(found)
