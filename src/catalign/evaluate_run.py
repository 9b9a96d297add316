"""Evaluate a run by one of the protocols: the full catalogue, one of N candidates, pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import Dataset, load_dataset
from catalign.decoding.candidates import score_candidates
from catalign.decoding.choices import generate_choices, score_choices, score_orders
from catalign.decoding.generation import PUBLISHED_BEAMS
from catalign.decoding.recommend import Decoder
from catalign.decoding.scores import ScoreMode
from catalign.errors import UserError
from catalign.evaluation.candidates_protocol import evaluate_candidates
from catalign.evaluation.cautions import Caution, of_choice, of_windows
from catalign.evaluation.evaluate import evaluate_search, floor_rows
from catalign.evaluation.pairs_protocol import evaluate_pairs
from catalign.evaluation.predictions import draw_windows
from catalign.files import write_json
from catalign.model.precision import choose_device
from catalign.processes import is_main, join_processes
from catalign.prompting.choices import ONE_OF, ChoicePrompter, ChoiceTemplate, template_of
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from catalign.recommender import Recommender
from catalign.training.run import RECIPE, Run, untuned_run

Protocol = Literal["full", "candidates", "pairs"]
PromptKind = Literal["history", "choices"]
Generation = Literal["constrained", "free"]
DecoderName = Literal["search", "grounding"]
Rows = dict[str, dict[str, Any]]
DEPTH = 20  # of the ranked lists, where the search is as wide

OWN_OPTIONS = {
    "full": {"decoder", "score", "beams", "length_penalty", "exclude_history", "examples"},
    "candidates": {"score", "candidates", "prompt", "generation"},
    "pairs": {"score", "prompt"},
}


@dataclass(frozen=True)
class Draw:
    """Which windows are evaluated, and how.

    Attributes:
        split: `test`, `valid` or `train`.
        windows: how many are drawn; None takes all.
        seed: of the draw, and of drawn candidates.
        batch_size: windows (or pairs) computed at once.
        output: where predictions go; None makes a folder inside the run.
    """

    split: str
    windows: int | None
    seed: int
    batch_size: int
    output: Path | None

    @property
    def name(self) -> str:
        """How folders of predictions call it."""
        return f"{self.split}-{'all' if self.windows is None else f'{self.windows}-seed{self.seed}'}"


def protocol_options(protocol: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a protocol, with their defaults.

    Raises:
        UserError: an option of another protocol, or two that do not go together.
    """
    foreign = given.keys() - OWN_OPTIONS[protocol]
    if foreign:
        name = min(foreign)
        owners = " or ".join(f"--protocol {owner}" for owner, names in OWN_OPTIONS.items() if name in names)
        raise UserError(f"--{name.replace('_', '-')} goes with {owners}", where=f"--protocol {protocol}")
    listed = given.get("prompt") == "choices"
    if listed and given.get("score") == "valid":
        raise UserError("--score valid goes with --prompt history", where="--prompt choices",
                        mend="answers to listed candidates are scored over the whole vocabulary")  # fmt: skip
    if given.get("generation") == "free" and "score" in given:
        raise UserError("--score goes with --generation constrained", where="--generation free")
    grounded = given.get("decoder") == "grounding"
    if grounded and "score" in given:
        raise UserError("--score goes with --decoder search", where="--decoder grounding",
                        mend="free texts are scored over the whole vocabulary")  # fmt: skip
    defaults = {
        "score": "full" if listed else "valid", "beams": PUBLISHED_BEAMS if grounded else 20,
        "length_penalty": 1.0 if grounded else 0.0, "exclude_history": False, "decoder": "search", "examples": 0,
        "candidates": 20, "prompt": "history", "generation": "constrained",
    }  # fmt: skip
    return {name: given.get(name, defaults[name]) for name in OWN_OPTIONS[protocol]}


class RunEvaluation:
    """A run and the dataset it is evaluated on; several processes share the users among them.

    Attributes:
        run: the run, with the catalogue of the dataset.
        dataset: where the windows come from.
    """

    def __init__(
        self, folder: Path, dataset: Path | None, *, transfer: bool = False, template: str | None = None
    ) -> None:
        """Load both.

        Args:
            folder: the run; or a model folder, which is evaluated as it is, untuned.
            dataset: a dataset folder; None takes the one the run was trained on.
            transfer: allow a dataset of another catalogue: the run's model and template with that catalogue's titles.
            template: of an untuned model's prompts; None takes `plain`.

        Raises:
            UserError: either cannot be loaded, or the dataset has another catalogue and `transfer` is off.
        """
        join_processes()
        if (folder / "config.json").is_file() and not (folder / RECIPE).is_file():
            if dataset is None:
                raise UserError("is a model, not a run", where=folder, mend="pass a dataset with --dataset")
            self.dataset: Dataset = load_dataset(dataset)
            self._elsewhere = ""
            self.run = untuned_run(folder, self.dataset, template or PLAIN.name, device=choose_device())
            return
        if template is not None:
            raise UserError("goes with a model folder", where="--template", mend="a run has its own")
        self.run = Recommender.load(folder).run
        trained_on = self.run.recipe.dataset
        if dataset is None and not trained_on.is_dir():
            raise UserError("the dataset of this run is gone", where=trained_on, mend="pass it with --dataset")
        self.dataset = load_dataset(dataset or trained_on)
        self._elsewhere = ""
        if Catalogue.from_frame(self.dataset.items).digest == self.run.catalogue.digest:
            return
        if not transfer:
            raise UserError(
                "has another catalogue than the run was trained on",
                where=self.dataset.folder,
                mend="pass the dataset of the run with --dataset, give the run these items (catalign model recatalogue "
                f"{folder} --dataset {self.dataset.folder} --output NEW_RUN), or --transfer to evaluate on this one",
            )
        self.run = _with_catalogue(self.run, self.dataset)
        self._elsewhere = f"-on-{self.dataset.folder.resolve().name}"

    def full(
        self, draw: Draw, *, decoder: DecoderName, beams: int, score: ScoreMode, length_penalty: float,
        exclude_history: bool, examples: int,
    ) -> Rows:  # fmt: skip
        """Rank the full catalogue, by search or by grounded free texts; see `evaluation.evaluate_search`."""
        recommender, shown = Recommender(self._with_examples(examples, draw.seed)), f"{examples} examples"
        common: dict[str, Any] = {
            "beams": beams, "length_penalty": length_penalty, "exclude_history": exclude_history,
            "batch_size": draw.batch_size,
        }  # fmt: skip
        searched = decoder == "search"
        ranker: Decoder = recommender.search(score=score, **common) if searched else recommender.grounding(**common)
        name = f"{draw.name}-beams{beams}-{score if searched else decoder}" + ("-new" if exclude_history else "")
        name += f"-length{length_penalty:g}" if length_penalty != (0 if searched else 1) else ""
        name += f"-{shown.replace(' ', '-')}" if examples else ""
        asked: dict[str, Any] = {"split": draw.split, "windows": draw.windows, "seed": draw.seed}
        metrics = evaluate_search(
            ranker, self.dataset, self._folder(draw, name), **asked, depth=min(DEPTH, beams) if searched else DEPTH,
            checkpoint=", ".join([self.run.checkpoint, *([shown] if examples else [])]),
        )  # fmt: skip
        floor = floor_rows(self.dataset, **asked, exclude_history=exclude_history)
        added = [*([] if searched else ["grounded"]), *([shown] if examples else [])]
        file = "-".join(["metrics", *(part.replace(" ", "-") for part in added)])
        return self._written(file, {**metrics, "floor": floor}, added)

    def candidates(
        self, draw: Draw, *, candidates: int, prompt: PromptKind, generation: Generation, score: ScoreMode
    ) -> Rows:
        """Rank the target among drawn candidates; see `evaluation.candidates_protocol`."""
        free = generation == "free"
        how = "free" if free else score
        made = {"prompt": prompt, "generation": generation, "score": None if free else score}
        answers: Any
        if free:
            answers = partial(generate_choices, self.run.model, self._prompter(prompt, ONE_OF))
        elif prompt == "choices":
            answers = partial(score_choices, self.run.model, self._chooser(ONE_OF))
        else:
            answers = partial(_score_rows, self.run, score)
        metrics = evaluate_candidates(
            answers, self.dataset, self._folder(draw, f"{draw.name}-one-of-{candidates}-{prompt}-{how}"),
            free=free, split=draw.split, windows=draw.windows, seed=draw.seed, candidates=candidates,
            batch_size=draw.batch_size, produced_by={**made, **self._made(draw)},
        )  # fmt: skip
        return self._written("metrics-candidates", metrics)

    def pairs(self, draw: Draw, *, prompt: PromptKind, score: ScoreMode) -> Rows:
        """Compare target and negatives; see `evaluation.pairs_protocol`."""
        scorer: Any
        if prompt == "choices":
            template = template_of(self.dataset.card.options)
            scorer = partial(score_orders, self.run.model, self._chooser(template))
        else:
            template = None
            scorer = partial(_score_pairs, self.run, score)
        made = {"prompt": template.name if template else prompt, "score": score, **self._made(draw)}
        metrics = evaluate_pairs(
            scorer, self.dataset, self._folder(draw, f"{draw.name}-pairs-{prompt}-{score}"),
            split=draw.split, windows=draw.windows, seed=draw.seed, batch_size=draw.batch_size, produced_by=made,
        )  # fmt: skip
        return self._written("metrics-pairs", metrics)

    def cautions(self, protocol: Protocol, draw: Draw) -> list[Caution]:
        """What a reader of the table has to be told."""
        asked = draw_windows(self.dataset.windows(draw.split), draw.windows, draw.seed)
        chosen_on = {"this run": self.run.training["chosen_on"]} if self.run.training else {}
        return [*of_windows(self.dataset, draw.split, protocol, asked), *of_choice(chosen_on, draw.split)]

    def _chooser(self, template: ChoiceTemplate) -> ChoicePrompter:
        return ChoicePrompter(
            self.run.catalogue, self.run.model.tokenizer, template, context=self.run.model.context,
            item_tokens=self.run.prompter.item_tokens,
        )  # fmt: skip

    def _prompter(self, prompt: PromptKind, template: ChoiceTemplate) -> Prompter | ChoicePrompter:
        return self.run.prompter if prompt == "history" else self._chooser(template)

    def _made(self, draw: Draw) -> dict[str, Any]:
        """What else tells two evaluations apart."""
        windows = self.dataset.card.files[f"windows/{draw.split}.parquet"]
        return {"checkpoint": self.run.checkpoint, "dataset": windows[:12]}

    def _folder(self, draw: Draw, name: str) -> Path:
        if draw.output is None and not self.run.training:
            raise UserError(
                "a model folder holds no results", where=self.run.folder, mend="name a folder with --output"
            )
        return draw.output or self.run.folder / "evaluations" / (name.replace(":", ".") + self._elsewhere)

    def _written(self, name: str, metrics: dict[str, Any], added: Sequence[str] = ()) -> Rows:
        """Write the metrics into the run, if it is one, and return the rows of the table, the floor first.

        Args:
            name: of the file.
            metrics: with `floor`, those of the floor rows.
            added: what the model's row says behind its objective.
        """
        if self.run.training and is_main():
            write_json(self.run.folder / f"{name}{self._elsewhere}.json", metrics)
        label = self.run.recipe.objective.label if self.run.training else "untuned"
        of_model = {key: value for key, value in metrics.items() if key != "floor"}
        return {**metrics["floor"], ", ".join([label, *added]): of_model}

    def _with_examples(self, count: int, seed: int) -> Run:
        """The run with worked examples before every prompt, drawn from the training windows."""
        if count == 0:
            return self.run
        drawn = draw_windows(self.dataset.windows("train"), count, seed)
        old, model = self.run.prompter, self.run.model
        prompter = Prompter(
            self.run.catalogue, model.tokenizer, old.template, context=model.context, rule=old.rule,
            examples=list(zip(drawn["history"].to_list(), drawn["target"].to_list(), strict=True)),
            item_tokens=old.item_tokens,
        )  # fmt: skip
        return replace(self.run, prompter=prompter)


def _with_catalogue(run: Run, dataset: Dataset) -> Run:
    """The run with the titles of another catalogue; its item embeddings are of the first, so they are left out."""
    catalogue = Catalogue.from_frame(dataset.items, dataset.training_counts())
    old, model = run.prompter, run.model
    prompter = Prompter(catalogue, model.tokenizer, old.template, context=model.context, rule=old.rule)
    return replace(run, catalogue=catalogue, prompter=prompter)


def _score_rows(run: Run, score: ScoreMode, histories: Any, candidate_BN: Any) -> Any:
    """Log-probability of each candidate given the history alone, [B, N]."""
    return np.stack(score_candidates(run.model, run.prompter, histories, list(candidate_BN), score=score))


def _score_pairs(run: Run, score: ScoreMode, histories: Any, pair_P2: Any, first_shown_P: Any) -> Any:
    """Log-probability of target and negative given the history alone, [P, 2]; nothing is shown."""
    return _score_rows(run, score, histories, pair_P2)
