"""The exact log-probability of any items for any users, without a search.

Legend: U users, S sequences (a user's prompt and one candidate title), P scored positions, E pairs of a scored position
and a valid token, H width, A alphabet.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from catalign.decoding.scores import ScoreMode
from catalign.decoding.scoring import token_losses
from catalign.model.forest import pack_forest, pack_rows
from catalign.model.language_model import LanguageModel
from catalign.prompting.positions import Positions, needed_sequences, scored_positions
from catalign.prompting.prompter import Prompter

IntArray = npt.NDArray[np.int64]


@torch.no_grad()
def score_candidates(
    model: LanguageModel,
    prompter: Prompter,
    histories: Sequence[Sequence[int] | npt.NDArray[np.integer]],
    candidates: Sequence[npt.ArrayLike],
    *,
    score: ScoreMode = "valid",
    row_tokens: int = 2048,
) -> list[npt.NDArray[np.float32]]:
    """Log-probability of each candidate item given each user's history.

    All prompts and titles go through the model in one pass as a prefix forest: a prompt is computed once however many
    candidates it has, and so are the beginnings that titles share.

    Args:
        model: the language model.
        prompter: writes the prompts and holds the trie.
        histories: U lists of item indices, oldest first.
        candidates: U lists of item indices; items that share a title get the same score.
        score: see `search_titles`; the scores are those that a search would give.
        row_tokens: longest row of the forest.

    Returns:
        U arrays, in the order of the candidates.
    """
    prompts = [prompter.prompt(history) for history in histories]
    return score_behind_prompts(model, prompter, prompts, candidates, score=score, row_tokens=row_tokens)


@torch.no_grad()
def score_behind_prompts(
    model: LanguageModel,
    prompter: Prompter,
    prompts: Sequence[npt.NDArray[np.int32]],
    candidates: Sequence[npt.ArrayLike],
    *,
    score: ScoreMode = "valid",
    row_tokens: int = 2048,
) -> list[npt.NDArray[np.float32]]:
    """`score_candidates` for prompts that are written already, each of at least one token."""
    items = [np.asarray(chosen, dtype=np.int64) for chosen in candidates]
    user_S = np.repeat(np.arange(len(items)), [len(chosen) for chosen in items])
    item_S = np.concatenate([*items, np.zeros(0, dtype=np.int64)])
    if len(item_S) == 0:
        return [np.zeros(0, dtype=np.float32) for _ in items]
    positions = scored_positions(prompter.trie, item_S, "vocabulary" if score == "full" else "valid")
    hidden_PH = _hidden_states(model, prompter, prompts, user_S, item_S, positions, row_tokens)
    loss_P = _losses(model, prompter, hidden_PH, positions, score)
    window_P = torch.from_numpy(positions.window_P).to(loss_P.device)
    score_S = -torch.zeros(len(item_S), device=loss_P.device).index_add(0, window_P, loss_P.float())
    splits = np.cumsum([len(chosen) for chosen in items])[:-1]
    return np.split(score_S.cpu().numpy(), splits)


def _hidden_states(
    model: LanguageModel,
    prompter: Prompter,
    prompts: Sequence[npt.NDArray[np.int32]],
    user_S: IntArray,
    item_S: IntArray,
    positions: Positions,
    row_tokens: int,
) -> torch.Tensor:
    """Hidden states [P, H] before each scored token, from one forest of all prompts and titles."""
    prompt_S = [prompts[user] for user in user_S]
    sequences = needed_sequences(prompter.trie, prompt_S, item_S, positions)
    forest = pack_forest(sequences, row_tokens) if model.shares_prefixes else pack_rows(sequences)
    length_S = np.fromiter(map(len, prompt_S), dtype=np.int64)
    node_P = forest.flat_nodes(positions.window_P, length_S[positions.window_P] - 1 + positions.depth_P)
    return model.forest_hidden(forest, torch.from_numpy(node_P))


def _losses(
    model: LanguageModel, prompter: Prompter, hidden_PH: torch.Tensor, positions: Positions, score: ScoreMode
) -> torch.Tensor:
    """-log p of the scored tokens, by the very formulas of training at temperature 1, or of an outside score; [P]."""
    alphabet = prompter.trie.alphabet.astype(np.int64)
    arrays = (positions.gold_P, positions.position_E, positions.symbol_E)
    alphabet_A, gold_P, position_E, symbol_E = (
        torch.from_numpy(array).to(hidden_PH.device) for array in (alphabet, *arrays)
    )
    return token_losses(model, alphabet_A, hidden_PH, gold_P, position_E, symbol_E, score)
