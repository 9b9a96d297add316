"""The few-shot files published with DMPO (arXiv 2405.16127), their defects repaired by stated rules.

Per domain three files are read, each a JSON list of objects with `instruction`, `input` and `output`: `*_sft_ranking`
(100 users), `*_dpo_ranking_5` (five negatives for each of these users, row after row) and `*_eval_ranking` (1,000
users). An instruction names the titles of a history and two candidates, the output the two in their right order (or a
list of two: in the right order, then swapped). The rules:

- A *window* is a user of the SFT file (`train`) or of the evaluation file (`test`): history, the positive title as
  target, the negatives in published order. There is no validation split. The files know no user ids, so users are
  numbered by split and place in their file.
- k negatives are the first k of the five: the published files of two and three nest in those of five, and the SFT pair
  is the first. The Amazon files `*_dpo_ranking_1` hold 200 other users, so no `*_dpo_ranking_1` is read.
- ML-1M writes evaluation titles in full (`Sound of Music, The (1965)`), training titles cut at the first comma or
  opening parenthesis (`Sound of Music`). All titles of the domain are cut like this, which is the only form that both
  have; a key that two films share (remakes, sequels, 25 keys in the published files) is one item.
- An item is a title, cleaned as in every importer; its id is the first published spelling, evaluation titles first.
- An evaluation user who is also a training user (same history, same pair) goes.
- After the repairs a negative that is the target, stands in the history or is named twice goes, and so does a window
  whose target stands in its history or that has no negative left. The published pairs know no such rows.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from catalign.data.items import ItemTable, settle_items
from catalign.data.json_tables import parse_json, read_document
from catalign.data.ledger import Ledger
from catalign.data.options import FewshotOptions, TitleOptions
from catalign.data.splits import SPLIT_TYPE
from catalign.errors import UserError

DOMAINS = {"games": "rec_Amazon_Game", "movies": "rec_Amazon_Movie", "ml-1m": "rec_data_ml_1m"}
CUT_DOMAIN = "ml-1m"
ANY_SFT_FILE = "rec_*_sft_ranking.json"
_CUT = r"^([^,(]+)"
_ASKS = ". Rank the likelihood of the user "


@dataclass(frozen=True)
class FewshotWindows:
    """The windows of one domain in terms of item indices.

    Attributes:
        table: the settled items.
        settings: what they were settled with.
        windows: `user_id`, `history` (list of UInt32), `target` (UInt32), `timestamp` (null), `split`, and three more:
            `negatives` (list of UInt32, in published order), `target_first` (list of Boolean, one per negative: whether
            the published prompt shows the target before it), `target_first_sft` (Boolean: the same in the SFT file,
            whose pair is the target and the first negative; null in `test`).
        paths: the files read.
        warnings: what a reader of results should know.
    """

    table: ItemTable
    settings: TitleOptions
    windows: pl.DataFrame
    paths: list[Path]
    warnings: list[str]


def read_fewshot(folder: Path, options: FewshotOptions, ledger: Ledger) -> FewshotWindows:
    """Read the three files of a domain; see the head of this module.

    Args:
        folder: where the files lie.
        options: the domain, and how many titles of a history are kept.
        ledger: counts rows under `items` (distinct published titles), `windows` and `negatives`.

    Raises:
        UserError: a file is missing, is in another form, or does not belong to the others.
    """
    stem = DOMAINS[options.domain]
    names = {
        "sft": f"{stem}_sft_ranking.json",
        "dpo": f"{stem}_dpo_ranking_5.json",
        "eval": f"{stem}_eval_ranking.json",
    }
    paths = {name: folder / file for name, file in names.items()}
    rows = {name: _read_rows(path) for name, path in paths.items()}
    ledger.enter("windows", rows["sft"].height + rows["eval"].height)
    raw, warnings = _published_titles([rows["eval"], rows["sft"], rows["dpo"]], options.domain, ledger)
    settings = TitleOptions(clean=options.clean, duplicate_titles="merge", without_rules=options.without_rules)
    table = settle_items(raw, settings, ledger)
    train = _with_preferences(rows["sft"], rows["dpo"], paths["dpo"])
    test = _without_training_users(rows["eval"], rows["sft"], ledger)
    windows = _index(pl.concat([train, test], how="diagonal"), table)
    windows = _drop_meaningless(windows, ledger)
    if options.history is not None:
        windows = windows.with_columns(pl.col("history").list.tail(options.history))
    columns = ("user_id", "history", "target", "timestamp", "split", "negatives", "target_first", "target_first_sft")
    return FewshotWindows(table, settings, windows.select(columns), list(paths.values()), warnings)


def _read_rows(path: Path) -> pl.DataFrame:
    """Parse one file: `history` (list of titles), `target`, `negative`, `target_first`, `shown` (text), file, row."""
    rows = parse_json(read_document(path), path)
    fields = {"instruction", "output"}
    if (
        not isinstance(rows, list)
        or not rows
        or not all(isinstance(row, dict) and fields <= row.keys() for row in rows)
    ):
        raise UserError("is not a JSON list of instruction, input and output", where=path)
    try:
        read = pl.DataFrame([{"instruction": row["instruction"], "output": row["output"]} for row in rows])
    except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
        raise UserError("outputs must be all texts or all pairs of texts", where=path) from error
    if read["output"].dtype == pl.List(pl.String):
        read = read.with_columns(pl.col("output").list.first())
    if read.schema != {"instruction": pl.String, "output": pl.String}:
        raise UserError("outputs must be all texts or all pairs of texts", where=path)
    asked = pl.col("instruction").str.split_exact(_ASKS, 1)
    read = read.select(
        "instruction",
        shown=asked.struct[0].str.extract(r"(?s)^[^<>]*: ( <Title:.*> )$"),
        pair=_split_titles(asked.struct[1].str.extract(r"(?s)^\w+ the two [^<>]*( <Title:.*> )\.$"), " and "),
        order=_split_titles(pl.col("output"), ", "),
    ).with_columns(history=_split_titles(pl.col("shown"), ""))
    first, second = pl.col("pair").list.get(0, null_on_oob=True), pl.col("pair").list.get(1, null_on_oob=True)
    target, negative = pl.col("order").list.get(0, null_on_oob=True), pl.col("order").list.get(1, null_on_oob=True)
    two = (pl.col("pair").list.len() == 2) & (pl.col("order").list.len() == 2)
    same = ((target == first) & (negative == second)) | ((target == second) & (negative == first))
    read = read.with_columns(target=target, negative=negative, target_first=target == first).with_row_index("row", 1)
    bad = read.filter(~(two & same & pl.col("history").is_not_null()).fill_null(False))
    if not bad.is_empty():
        raise UserError(
            f"is not the published prompt with a pair and its order: {bad['instruction'][0][:80]!r}",
            where=f"{path}, row {bad['row'][0]}",
        )
    kept = read.select("history", "target", "negative", "target_first", "shown", "row")
    return kept.with_columns(file=pl.lit(path.name)).select(pl.exclude("row"), pl.col("row").cast(pl.UInt32))


def _split_titles(text: pl.Expr, between: str) -> pl.Expr:
    """Read ` <Title:A> ` + between + ` <Title:B> ` + ... as the list of A, B, ..."""
    return text.str.extract(r"(?s)^ <Title:(.*)> $").str.split(f"> {between} <Title:")


def _published_titles(files: list[pl.DataFrame], domain: str, ledger: Ledger) -> tuple[pl.DataFrame, list[str]]:
    """List the titles as raw items, in order of appearance; the published spelling is the id."""
    spelt = [
        rows.select(titles, "file", "row").explode("item_id", empty_as_null=False)
        for rows in files
        for titles in [pl.concat_list("history", "target", "negative").alias("item_id")]
    ]
    raw = pl.concat(spelt).unique("item_id", keep="first", maintain_order=True)
    title, warnings = pl.col("item_id"), []
    if domain == CUT_DOMAIN:
        title = pl.coalesce(title.str.extract(_CUT), title).str.strip_chars()
        long = raw.filter(pl.col("item_id").str.contains(r"^[^,(]+[,(]")).with_columns(cut=title)
        shared = long.filter(pl.col("cut").is_duplicated())
        warnings.append(
            f"{long.height:,} titles were cut at their first comma or opening parenthesis, as the training titles are; "
            f"{shared.height:,} of them share {shared['cut'].n_unique():,} titles and became one item each"
        )
    ledger.enter("items", raw.height)
    return raw.select("item_id", title.alias("title"), pl.col("file").cast(pl.Categorical), "row"), warnings


def _with_preferences(sft: pl.DataFrame, dpo: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Give each SFT user the negatives of the preference file."""
    user = ["shown", "target"]
    several = dpo.group_by(user, maintain_order=True).agg(negatives="negative", sides="target_first")
    if not several.join(sft, on=user, how="anti").is_empty():
        raise UserError("holds users that the SFT file lacks", where=path, mend="take the files of one publication")
    train = sft.join(several, on=user, how="left", maintain_order="left")
    apart = train.filter(pl.col("negatives").list.first().ne_missing(pl.col("negative")))
    if not apart.is_empty():
        raise UserError(
            f"does not begin with the negative of the SFT file for the user of its row {apart['row'][0]}",
            where=path,
            mend="take the files of one publication",
        )
    return train.select(
        pl.lit("train", dtype=SPLIT_TYPE).alias("split"),
        pl.format("train-{}", "row").alias("user_id"),
        "history",
        "target",
        "negatives",
        pl.col("sides").alias("target_first"),
        pl.col("target_first").alias("target_first_sft"),
        "file",
        "row",
    )


def _without_training_users(evaluation: pl.DataFrame, sft: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    """The evaluation users, those of the SFT file with the same pair left out."""
    pair = ["shown", "target", "negative"]
    known = sft.select(*pair, known=True).unique(pair)
    users = evaluation.join(known, on=pair, how="left", maintain_order="left")
    users = ledger.drop("windows", users, pl.col("known"), "evaluation user who is a training user too")
    return users.select(
        pl.lit("test", dtype=SPLIT_TYPE).alias("split"),
        pl.format("test-{}", "row").alias("user_id"),
        "history",
        "target",
        pl.concat_list("negative").alias("negatives"),
        pl.concat_list("target_first").alias("target_first"),
        "file",
        "row",
    )


def _index(windows: pl.DataFrame, table: ItemTable) -> pl.DataFrame:
    """Turn published titles into item indices."""
    numbers = table.frame.select("item_id").with_row_index("item")
    known = table.known.join(numbers, on="item_id", how="left", maintain_order="left")
    titles, items = known["source_id"], known["item"]

    def index(text: pl.Expr) -> pl.Expr:
        return text.replace_strict(titles, items, default=None, return_dtype=pl.UInt32)

    return windows.with_columns(
        pl.col("history").list.eval(index(pl.element())).list.drop_nulls(),
        pl.col("negatives").list.eval(index(pl.element())),
        target=index(pl.col("target")),
        timestamp=pl.lit(None, pl.Int64),
    )


def _drop_meaningless(windows: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    """Drop the negatives and windows that the repairs made meaningless; see the head of this module."""
    windows = ledger.drop("windows", windows, pl.col("target").is_null(), "target without a title")
    repeated = pl.col("history").list.contains(pl.col("target"))
    windows = ledger.drop("windows", windows, repeated, "title of the target in the history")
    pairs = windows.rename({"negatives": "negative"}).explode("negative", "target_first")
    pairs = pairs.with_columns(place=pl.int_range(pl.len()))
    ledger.enter("negatives", pairs.height)
    for condition, reason in (
        (pl.col("negative").is_null(), "without a title"),
        (pl.col("negative") == pl.col("target"), "title of the target"),
        (pl.col("history").list.contains(pl.col("negative")), "title in the history"),
        (pl.col("place") != pl.col("place").first().over("user_id", "negative"), "named twice"),
    ):
        pairs = ledger.drop("negatives", pairs, condition, reason)
    left = pairs.group_by("user_id", maintain_order=True).agg(pl.col("negative").alias("negatives"), "target_first")
    windows = windows.drop("negatives", "target_first").join(left, on="user_id", how="left", maintain_order="left")
    return ledger.drop("windows", windows, pl.col("negatives").is_null(), "no negative left")
