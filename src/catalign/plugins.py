"""What a user adds from outside the package, by its name: `my_package.losses:focal`.

An objective, a source of data, a sampler of negatives and a decoder's score are one function each; the protocol of each
stands in its room. Nothing is imported but what an option or a recipe names, from where Python finds packages anyway,
and what is imported is told. Loading a run for use imports nothing; training by a recipe imports what the recipe names.
"""

import difflib
import inspect
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

from pydantic import StringConstraints

from catalign.errors import UserError
from catalign.processes import is_main
from catalign.progress import console

OutsideName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
"""`package.module:name`; the names of what the package has itself hold no colon."""


def is_outside(name: str) -> bool:
    """Whether a name is one of something outside the package."""
    return ":" in name


@cache
def load(name: str, protocol: Any, *, where: str) -> Any:
    """Import what a name stands for.

    Args:
        name: `package.module:name`.
        protocol: the `typing.Protocol` of a function that it should fit; its `__call__` says which arguments it takes,
            in order.
        where: the option or the field of a recipe, for messages.

    Raises:
        UserError: no such module, no such name in it, or no function that takes these arguments.
    """
    module_name, _, attribute = name.partition(":")
    place = f"{where} {name}"
    module = _imported(module_name, place)
    if not hasattr(module, attribute):
        public = [known for known in vars(module) if not known.startswith("_")]
        near = difflib.get_close_matches(attribute, public, n=1)
        raise UserError(
            f"{module_name} has no {attribute}", where=place, mend=f"did you mean {near[0]}?" if near else None
        )
    found = getattr(module, attribute)
    _check(found, protocol, place)
    if is_main():
        console.print(f"imported {name} ({module.__file__})", markup=False, soft_wrap=True)
    return found


def _imported(name: str, place: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{name} needs {error.name}, which is not installed", where=place) from error
        mend = "install its package, or put the folder that holds it on PYTHONPATH"
        raise UserError(f"there is no module {error.name}", where=place, mend=mend) from error
    except Exception as error:  # whatever a module of others does when it is imported
        raise UserError(f"{name} cannot be imported ({type(error).__name__}: {error})", where=place) from error


def _check(found: Any, protocol: Any, place: str) -> None:
    """Refuse what cannot be called with the arguments of the protocol."""
    wanted = [name for name in inspect.signature(protocol.__call__).parameters if name != "self"]
    expected = f"a function of ({', '.join(wanted)}) is expected"
    if isinstance(found, type) or not callable(found):
        what = "a class" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise UserError(f"is {what}; {expected}", where=place, mend=f"see catalign.{_home(protocol)}")
    try:
        inspect.signature(found).bind(*wanted)
    except TypeError as error:
        raise UserError(f"{error}; {expected}", where=place, mend=f"see catalign.{_home(protocol)}") from error


def _home(protocol: Any) -> str:
    return f"{protocol.__module__}.{protocol.__name__}".removeprefix("catalign.")
