import json

import numpy as np

from catalign.evaluation.metrics import summarise
from catalign.evaluation.table import as_json, as_markdown, as_text

RANK_W = np.array([1, 0, 3, 0, 11, 2, 0, 1])
WARM_W = np.array([True] * 6 + [False] * 2)
DEEP = summarise(RANK_W, WARM_W, depth=20, groups_W=np.array(list("aabbccdd")))
SHORT = summarise(np.minimum(RANK_W, 5), np.ones(8, dtype=bool), depth=5)
PRODUCED = {"split": "test", "beams": 20, "sample": {"count": 8, "seed": 0}}
ROWS = {"popularity": SHORT, "MSL with adaptive temperature": {**DEEP, "produced_by": PRODUCED}}


def test_text_fits_the_terminal_and_says_everything() -> None:
    text = as_text(ROWS)
    assert max(map(len, text.splitlines())) < 120
    assert f"{DEEP['ndcg@10']:.4f}"[1:] in text
    low, high = DEEP["ci95"]["hr@10"]
    assert f"{low:.4f} – {high:.4f}".replace("0.", ".") in text
    assert f"{DEEP['cold']['ndcg@10']:.4f}"[1:] in text
    assert "over windows / users" in text
    assert "MSL with adaptive temperature: split test, beams 20, sample (count 8, seed 0)" in text


def test_narrow_terminals_lose_nothing() -> None:
    text = as_text(ROWS, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "(2)" in text  # the cold windows, in the last column


def test_markdown_has_a_row_per_method_and_dashes_where_nothing_is_known() -> None:
    lines = as_markdown(ROWS).splitlines()
    assert lines[0] == "| method | NDCG@10 | HR@10 | MRR@10 | NDCG@10 warm | NDCG@10 cold | windows (cold) |"
    assert lines[2] == "| popularity | – | – | – | – | – | 8 (0) |"
    assert lines[3].startswith("| MSL with adaptive temperature | .") and lines[3].endswith(" | 8 (2) |")
    assert all(line.count("|") == 8 for line in lines[:4])
    assert "| a\\|b |" in as_markdown({"a|b": DEEP})


def test_json_holds_every_number() -> None:
    first, second = json.loads(as_json(ROWS))
    assert first == {"method": "popularity", **SHORT}
    assert second == {"method": "MSL with adaptive temperature", **DEEP, "produced_by": PRODUCED}
