"""Templates by name and from YAML, good and bad."""

from pathlib import Path

import pytest

from catalign.errors import UserError
from catalign.prompting.templates import INSTRUCTION, PLAIN, Template, load_template


def test_built_in() -> None:
    assert load_template("plain") is PLAIN
    assert load_template("instruction") is INSTRUCTION


def test_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('opening: "Seen: "\nitem: "* {title}"\nseparator: "\\n"\nend_after_item: true\n', encoding="utf-8")
    assert load_template(str(path)) == Template(
        name="mine", opening="Seen: ", item="* {title}", separator="\n", end_after_item=True
    )
    path.write_text("name: other\n", encoding="utf-8")
    assert load_template(str(path)).name == "other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item: no place for it\n", "field item"),
        ('answer: "{title} {title}"\n', "field answer"),
        ('item: "{name}: {title}"\n', "field item"),
        ("header: x\n", "field header"),
        ("end_after_item: [1]\n", "field end_after_item"),
        ("- a\n- b\n", "is not a template"),
        ("just text\n", "is not a template"),
        ("a: [\n", "is not YAML"),
        ("", "is not a template"),
        ("1: x\n", "field 1"),
        ("item: a\nitem: b\n", "is not YAML (item stands twice in line 1 and below)"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_template(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="is not YAML"):
        load_template(str(path))


def test_no_such_template() -> None:
    with pytest.raises(UserError, match="no such template: fancy") as caught:
        load_template("fancy")
    assert "plain or instruction" in str(caught.value)


def test_the_bare_title_of_an_answer() -> None:
    assert INSTRUCTION.bare('"The Two Towers"') == "The Two Towers"
    assert INSTRUCTION.bare(' "The Two Towers') == "The Two Towers"  # cut before its end
    assert INSTRUCTION.bare('"The "Gate""') == 'The "Gate"'
    assert INSTRUCTION.bare("") == "" and INSTRUCTION.bare('""') == ""
    assert PLAIN.bare(" The Two Towers ") == "The Two Towers"
    framed = Template(name="framed", answer="Title: {title} (item)")
    assert framed.bare("Title: The Two Towers (item)") == "The Two Towers"
    assert framed.bare("The Two Towers") == "The Two Towers"
