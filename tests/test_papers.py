"""docs/papers.md names functions and recipes that exist, all the recipes' papers, and every method once."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
FUNCTIONS = sorted(set(re.findall(r"`(src/catalign/[\w/]+\.py):(\w+)`", TEXT)))
FILES = sorted(set(re.findall(r"`((?:src|docs|recipes|tests|benchmarks)/[\w./+-]+)`", TEXT)))
PARTS = re.split(r"^##+ (.+)$", TEXT, flags=re.MULTILINE)
SECTIONS = dict(zip(PARTS[1::2], PARTS[2::2], strict=True))


def test_there_is_something_to_check() -> None:
    assert len(FUNCTIONS) > 15 and len(FILES) > 30


@pytest.mark.parametrize(("file", "name"), FUNCTIONS)
def test_a_function_that_is_named_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_named_exists(file: str) -> None:
    assert (ROOT / file).exists()


@pytest.mark.parametrize("section", SECTIONS)
def test_a_method_has_its_equation_its_function_and_its_recipe(section: str) -> None:
    body = SECTIONS[section]
    assert re.search(r"`src/catalign/[\w/]+\.py:\w+`", body)
    assert "recipes/" in body or "Recipes:" in body
    assert section == "Mask first" or re.search(r"^    \S.* = .+$", body, re.MULTILINE)


def test_the_papers_of_all_recipes_are_here() -> None:
    cited = {
        number
        for path in (ROOT / "recipes").rglob("*.yaml")
        for number in re.findall(r"arXiv (\d{4}\.\d{5})", path.read_text(encoding="utf-8"))
    }
    assert len(cited) >= 7 and cited <= set(re.findall(r"https://arxiv\.org/abs/(\d{4}\.\d{5})", TEXT))
