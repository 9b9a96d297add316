"""The rows of the few-shot experiment, and its tables: means over seeds with their intervals.

Legend: S seeds, Q questions (pairs or windows), C items that each compares, the target first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from catalign.evaluation.pairs_protocol import paired_wins, pooled_auc

BASE, SFT, SFT_PAIRS = "base", "SFT", "SFT, pair prompt"
UNSEEN, TRAINING_PAIRS = "unseen", "training pairs of"
COIN = 2  # of the pooled AUC, as in the protocol of pairs
Floats = npt.NDArray[np.float64]


def preference(name: str, count: int, **more: Any) -> dict[str, Any]:
    """The fields of a preference run on the published negatives."""
    negatives = {"kind": "given", "count": count}
    return {"stage": "preference", "objective": {"name": name}, "negatives": negatives, **more}


ROWS: dict[str, dict[str, Any]] = {
    SFT: {"objective": {"name": "lml"}},
    "SFT + DMPO, k = 1": preference("dmpo", 1),
    "SFT + DMPO, k = 2": preference("dmpo", 2),
    "SFT + DMPO, k = 3": preference("dmpo", 3),
    "SFT + DMPO, k = 5": preference("dmpo", 5),
    "DMPO alone, k = 3": preference("dmpo", 3, without_sft=True),
    "SFT + S-DPO, k = 3": preference("sdpo", 3),
    "SFT + pairs, k = 3": preference("pairs", 3),
    "SFT + released, k = 3": preference("dmpo-released", 3),
    SFT_PAIRS: {"objective": {"name": "lml"}, "task": "pairs"},
    f"{SFT_PAIRS} + DMPO, k = 3": preference("dmpo", 3, task="pairs"),
}
"""What differs between the recipes of the rows."""


@dataclass(frozen=True)
class Scores:
    """What was measured.

    Attributes:
        of_runs: row, trained domain and questions to one array [Q, C] per seed.
        floor: questions and floor row to [Q, C].
        users: questions to user ids [Q].
    """

    of_runs: Mapping[str, Mapping[str, Mapping[str, Sequence[npt.NDArray[Any]]]]]
    floor: Mapping[str, Mapping[str, npt.NDArray[Any]]]
    users: Mapping[str, npt.NDArray[Any]]


def first_wins(score_QC: npt.NDArray[Any]) -> Floats:
    """1 where the target is scored highest; where it shares the first place, its chance under random order."""
    target_Q, other_QO = score_QC[:, :1], score_QC[:, 1:]
    ties_Q = (other_QO == target_Q).sum(axis=1)
    wins: Floats = (other_QO <= target_Q).all(axis=1) / (1 + ties_Q)
    return wins


def interval(parts: Sequence[Floats], users: Sequence[npt.NDArray[Any]]) -> dict[str, Any]:
    """The mean over parts, seeds and questions, and its 95 % interval.

    Two things vary: which users are asked, and the seeds. The variance is the sum of both: that over users (whole users
    where they have several questions) of the mean over seeds, and that of the seeds' means divided by S. What a seed
    does to a single user is in both terms, so the interval is a little wide. The quantile is Student's, with the
    degrees of freedom of Welch and Satterthwaite: with three seeds that differ it is wide, as it should be. One row
    without seeds (S = 1) has the first term alone.

    Args:
        parts: [S, Q] each, of different users.
        users: [Q] each.
    """
    seed_S = np.mean([part_SQ.mean(axis=1) for part_SQ in parts], axis=0)
    each = [mean_variance(part_SQ.mean(axis=0), of) for part_SQ, of in zip(parts, users, strict=True)]
    terms = [(variance / len(parts) ** 2, count - 1) for variance, count in each]
    if len(seed_S) > 1:
        terms.append((float(seed_S.var(ddof=1)) / len(seed_S), len(seed_S) - 1))
    return told(float(seed_S.mean()), terms, seed_S)


def mean_variance(value_Q: Floats, users_Q: npt.NDArray[Any]) -> tuple[float, int]:
    """The variance of a mean whose values come in groups (users), and the number of groups."""
    _, group_Q = np.unique(users_Q, return_inverse=True)
    sum_G = np.bincount(group_Q, weights=value_Q - value_Q.mean())
    groups = len(sum_G)
    return float((sum_G**2).sum()) / len(value_Q) ** 2 * groups / max(groups - 1, 1), groups


def told(mean: float, terms: Iterable[tuple[float, int]], seed_S: Floats) -> dict[str, Any]:
    """Mean, interval and seeds; the terms are variances with their degrees of freedom."""
    known = [(variance, max(freedom, 1)) for variance, freedom in terms if variance > 0]
    total = sum(variance for variance, _ in known)
    freedom = total**2 / sum(variance**2 / free for variance, free in known) if known else 1.0
    half = float(student.ppf(0.975, freedom)) * total**0.5
    return {"mean": mean, "ci95": [mean - half, mean + half], "seeds": np.round(seed_S, 5).tolist()}


def auc_interval(scores: Sequence[npt.NDArray[Any]]) -> dict[str, Any]:
    """The mean pooled AUC of the seeds; the variance over users is the mean of DeLong's."""
    right_Q = np.random.default_rng([0, COIN]).random(len(scores[0])) < 0.5
    found = [pooled_auc(np.where(right_Q, score_Q2[:, 0], score_Q2[:, 1]), right_Q) for score_Q2 in scores]
    auc_S, error_S = np.array(found).T
    terms = [(float((error_S**2).mean()), len(right_Q) - 1)]
    if len(auc_S) > 1:
        terms.append((float(auc_S.var(ddof=1)) / len(auc_S), len(auc_S) - 1))
    return told(float(auc_S.mean()), terms, auc_S)


class Wins:
    """Which questions each row answers right, [S, Q]."""

    def __init__(self, scores: Scores) -> None:
        self.users = scores.users
        self.of_runs = {
            (row, domain, name): np.stack([first_wins(score_QC) if name == UNSEEN else paired_wins(score_QC)
                                           for score_QC in several])
            for row, domains in scores.of_runs.items()
            for domain, asked in domains.items()
            for name, several in asked.items()
        }  # fmt: skip

    def cell(self, row: str, name: str, domains: Sequence[str], less: str | None = None) -> Floats:
        """Mean over runs trained in some domains, [S, Q]; with `less` the difference to another row."""
        mean: Floats = np.mean([self.of_runs[row, domain, name] for domain in domains], axis=0)
        return mean if less is None else mean - self.cell(less, name, domains)

    def interval(self, row: str, asked: Mapping[str, Sequence[str]], less: str | None = None) -> dict[str, Any] | None:
        """Over several questions, each answered by runs trained in some domains; None where they were not asked."""
        if any((row, domain, name) not in self.of_runs for name, domains in asked.items() for domain in domains):
            return None
        parts = [self.cell(row, name, domains, less) for name, domains in asked.items()]
        return interval(parts, [self.users[name] for name in asked])


def tables(scores: Scores) -> tuple[dict[str, Any], str]:
    """All numbers, and the tables as Markdown: over all domains, then each trained domain."""
    rows, wins = [row for row in (BASE, *ROWS) if row in scores.of_runs], Wins(scores)
    domains = list(scores.of_runs[SFT])
    everywhere: dict[str, dict[str, Sequence[str]]] = {
        "own domain": {name: [name] for name in domains},
        "other domains": {name: [other for other in domains if other != name] for name in domains},
        "unseen, HR@1 of 20": {UNSEEN: domains},
        "training pairs": {f"{TRAINING_PAIRS} {name}": [name] for name in domains},
    }
    if len(domains) == 1:
        del everywhere["other domains"]
    overall: dict[str, dict[str, Any]] = {
        row: {column: wins.interval(row, asked) for column, asked in everywhere.items()} for row in rows
    }
    for row in rows:
        if row not in (BASE, SFT, SFT_PAIRS):
            less = SFT_PAIRS if row.startswith(SFT_PAIRS) else SFT
            for column in ("own domain", "other domains", "unseen, HR@1 of 20"):
                if column in everywhere:
                    overall[row][f"{column}, less SFT"] = wins.interval(row, everywhere[column], less)
    floor = floor_rows(scores, domains)
    by_domain = {domain: domain_rows(scores, wins, domain, domains) for domain in domains}
    heads = [*everywhere, *(f"{column}, less SFT" for column in everywhere if column != "training pairs")]
    text = [f"Over {len(domains)} domains ({', '.join(domains)})\n", markdown({**floor["overall"], **overall}, heads)]
    for domain, cells in by_domain.items():
        heads = [*(f"pairs of {name}" for name in domains), "pooled AUC, own", "unseen, HR@1 of 20", "training pairs"]
        text += [f"\nTrained on {domain}\n", markdown({**floor["by domain"], **cells}, heads)]
    return {
        "overall": {**floor["overall"], **overall},
        "floor": floor["by domain"],
        "trained on": by_domain,
    }, "\n".join(text)


def domain_rows(scores: Scores, wins: Wins, domain: str, domains: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The cells of the runs that were trained in one domain."""
    rows = {}
    for row in (row for row in (BASE, *ROWS) if row in scores.of_runs):
        cells = {f"pairs of {name}": wins.interval(row, {name: [domain]}) for name in domains}
        cells["pooled AUC, own"] = auc_interval(scores.of_runs[row][domain][domain])
        cells["unseen, HR@1 of 20"] = wins.interval(row, {UNSEEN: [domain]})
        cells["training pairs"] = wins.interval(row, {f"{TRAINING_PAIRS} {domain}": [domain]})
        rows[row] = cells
    return rows


def floor_rows(scores: Scores, domains: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """The floor rows; each knows the training histories of the very catalogue it is asked about."""
    overall: dict[str, dict[str, Any]] = {}
    cells: dict[str, dict[str, Any]] = {}
    for row in scores.floor[domains[0]]:
        wins = {name: paired_wins(scores.floor[name][row])[None] for name in domains}
        overall[row] = {"own domain": interval(list(wins.values()), [scores.users[name] for name in domains])}
        cells[row] = {f"pairs of {name}": interval([wins[name]], [scores.users[name]]) for name in domains}
        if row in scores.floor[UNSEEN]:
            hits = interval([first_wins(scores.floor[UNSEEN][row])[None]], [scores.users[UNSEEN]])
            overall[row]["unseen, HR@1 of 20"] = cells[row]["unseen, HR@1 of 20"] = hits
    return {"overall": overall, "by domain": cells}


def markdown(rows: Mapping[str, Mapping[str, Any]], heads: Sequence[str]) -> str:
    """A table of means with their intervals."""
    lines = [["", *heads], ["---", *["---:"] * len(heads)]]
    lines += [[row, *(cell_text(cells.get(head)) for head in heads)] for row, cells in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell_text(cell: Mapping[str, Any] | None) -> str:
    """Mean and interval, a dash where there is none."""
    if cell is None:
        return "–"
    low, high = cell["ci95"]
    return f"{signless(cell['mean'])} ({signless(low)} – {signless(high)})"


def signless(value: float) -> str:
    """Three digits without the leading zero."""
    return f"{value:.3f}".replace("0.", ".", 1)
