"""How a history is written out for the model.

A template is a few pieces of text. Each piece is turned into tokens on its own and once, so that an item has the same
tokens wherever it stands: prompts share their beginnings, training and inference see the same tokens, and no text is
tokenised twice.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from catalign.errors import UserError
from catalign.files import read_yaml

TITLE = "{title}"
TitleText = Annotated[str, StringConstraints(pattern=r"^[^{}]*\{title\}[^{}]*$")]


class Template(BaseModel):
    """The pieces of a prompt and the form of its answer.

    Attributes:
        name: what the template is called in reports.
        opening: text before the history.
        item: one item of the history; `{title}` stands for its title.
        separator: text between two items of the history.
        end_after_item: put the model's end token after each item, as it stands after the answer.
        closing: text after the history.
        answer: the answer; the model's end token follows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    opening: str = ""
    item: TitleText = TITLE
    separator: str = ""
    end_after_item: bool = False
    closing: str = ""
    answer: TitleText = TITLE

    def bare(self, answer: str) -> str:
        """The title in a free answer: without what this template puts around it, where that is there."""
        before, after = self.answer.split(TITLE)
        return answer.strip().removeprefix(before.lstrip()).removesuffix(after.rstrip()).strip()


PLAIN = Template(name="plain", end_after_item=True)
"""The titles of the history, each closed by the end token, then the next title in the same form."""

INSTRUCTION = Template(
    name="instruction",
    opening=(
        "Below is a task with the data it needs. Answer it.\n\n"
        "### Instruction:\nHere are the items that a person chose, the oldest first. "
        "Name one item that this person will choose next.\n\n"
        "### Input:\nThe person chose: "
    ),
    item='"{title}"',
    separator=", ",
    closing="\n\n### Response:\n",
    answer='"{title}"',
)
"""An instruction, the quoted titles of the history, and a cue for the answer, as in the published prompts."""

BUILT_IN = {template.name: template for template in (PLAIN, INSTRUCTION)}


def load_template(name_or_file: str) -> Template:
    """Return a built-in template by name, or one's own from a YAML file with the fields of `Template`.

    Raises:
        UserError: neither a built-in name nor a readable template file.
    """
    if name_or_file in BUILT_IN:
        return BUILT_IN[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        names = " or ".join(BUILT_IN)
        raise UserError(f"no such template: {name_or_file}", where="--template", mend=f"use {names}, or a YAML file")
    fields = read_yaml(path, "template")
    if not isinstance(fields, dict):
        raise UserError("is not a template: a mapping of names to values is expected", where=path)
    try:
        return Template.model_validate({"name": path.stem, **fields})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        allowed = ", ".join(Template.model_fields)
        raise UserError(f"field {field}: {first['msg']}", where=path, mend=f"the fields are {allowed}") from error
