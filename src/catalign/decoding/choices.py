"""What a model makes of prompts that list candidates: the log-probability of each answer, or an answer of its own.

Legend: B users, N candidates of a user, S sequences (a prompt and one answer), P scored positions, H width.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from catalign.decoding.generation import generate_texts
from catalign.decoding.scoring import vocabulary_losses
from catalign.model.forest import pack_forest, pack_rows
from catalign.model.language_model import LanguageModel
from catalign.prompting.choices import ChoicePrompter
from catalign.prompting.prompter import Prompter, TokenArray

Histories = Sequence[Sequence[int] | npt.NDArray[np.integer]]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@torch.no_grad()
def score_answers(
    model: LanguageModel,
    prompts: Sequence[TokenArray],
    answers: Sequence[Sequence[TokenArray]],
    *,
    row_tokens: int = 2048,
) -> FloatArray:
    """Log-probability of each answer, end token included, under the whole vocabulary, float32 [B, N].

    Prompts and answers go through the model in one pass as a prefix forest.

    Args:
        model: the language model.
        prompts: B token arrays.
        answers: N token arrays for each prompt.
        row_tokens: longest row of the forest.
    """
    prompt_S = [prompt for prompt, several in zip(prompts, answers, strict=True) for _ in several]
    answer_S = [answer for several in answers for answer in several]
    if not answer_S:
        return np.zeros((len(prompts), 0), dtype=np.float32)
    sequences = [np.concatenate([prompt, answer[:-1]]) for prompt, answer in zip(prompt_S, answer_S, strict=True)]
    forest = pack_forest(sequences, row_tokens) if model.shares_prefixes else pack_rows(sequences)
    length_S = np.fromiter(map(len, answer_S), dtype=np.int64)
    before_S = np.fromiter(map(len, prompt_S), dtype=np.int64) - 1
    sequence_P = np.repeat(np.arange(len(answer_S)), length_S)
    depth_P = np.arange(len(sequence_P)) - np.repeat(np.cumsum(length_S) - length_S, length_S)
    node_P = torch.from_numpy(forest.flat_nodes(sequence_P, before_S[sequence_P] + depth_P))
    hidden_PH = model.forest_hidden(forest, node_P)
    gold_P = torch.from_numpy(np.concatenate(answer_S).astype(np.int64)).to(hidden_PH.device)
    loss_P = vocabulary_losses(model, hidden_PH, gold_P).float()
    index_P = torch.from_numpy(sequence_P).to(loss_P.device)
    score_S = -torch.zeros(len(answer_S), device=loss_P.device).index_add(0, index_P, loss_P)
    return score_S.cpu().numpy().reshape(len(prompts), -1)


def score_choices(
    model: LanguageModel, chooser: ChoicePrompter, histories: Histories, candidate_BN: IntArray
) -> FloatArray:
    """Log-probability of each candidate as the answer to a prompt that lists them all in this order, [B, N]."""
    prompts = [chooser.prompt(history, row_N) for history, row_N in zip(histories, candidate_BN, strict=True)]
    return score_answers(model, prompts, [[chooser.answer([item]) for item in row_N] for row_N in candidate_BN])


def score_orders(
    model: LanguageModel,
    chooser: ChoicePrompter,
    histories: Histories,
    pair_B2: IntArray,
    first_shown_B: npt.NDArray[np.bool_],
) -> FloatArray:
    """Log-probability of naming both items of a pair as given, and swapped, [B, 2].

    Args:
        model: the language model.
        chooser: writes prompts whose answer names all candidates in order.
        histories: B lists of item indices, oldest first.
        pair_B2: two items per user.
        first_shown_B: whether the prompt lists the pair as given (else swapped).
    """
    shown_B2 = np.where(first_shown_B[:, None], pair_B2, pair_B2[:, ::-1])
    prompts = [chooser.prompt(history, shown) for history, shown in zip(histories, shown_B2, strict=True)]
    return score_answers(model, prompts, [[chooser.answer(pair), chooser.answer(pair[::-1])] for pair in pair_B2])


def generate_choices(
    model: LanguageModel, prompter: Prompter | ChoicePrompter, histories: Histories, candidate_BN: IntArray
) -> IntArray:
    """The candidate whose title the model writes when it may write anything (greedily), int64 [B], -1 if it is none.

    A text counts where it equals, without blanks at either end, what the tokenizer writes for the answer.

    Args:
        model: the language model.
        prompter: writes the prompt from the history alone, or from history and candidates.
        histories: B lists of item indices, oldest first.
        candidate_BN: no two of a user with one title.
    """
    if isinstance(prompter, ChoicePrompter):
        prompts = [prompter.prompt(history, row_N) for history, row_N in zip(histories, candidate_BN, strict=True)]
        longest, answer = prompter.longest_answer, lambda item: prompter.answer([item])
    else:
        prompts = [prompter.prompt(history) for history in histories]
        longest, answer = int(prompter.trie.depth.max()), lambda item: _title_tokens(prompter, item)
    written = generate_texts(model, prompts, beams=1, most_tokens=longest).texts(model.tokenizer)
    titles = _texts(model, answer, candidate_BN)
    meant_BN = np.array([[text] for (text,) in written]) == titles
    chosen_B = candidate_BN[np.arange(len(candidate_BN)), meant_BN.argmax(axis=1)]
    return np.where(meant_BN.any(axis=1), chosen_B, -1)


def _title_tokens(prompter: Prompter, item: int) -> TokenArray:
    return prompter.trie.token[prompter.answer_nodes([item])[0]]


def _texts(model: LanguageModel, answer: Callable[[int], TokenArray], candidate_BN: IntArray) -> npt.NDArray[np.str_]:
    """What the tokenizer writes for each candidate's answer."""
    rows: list[list[int]] = [answer(item).tolist() for item in candidate_BN.ravel().tolist()]
    texts = [text.strip() for text in model.tokenizer.batch_decode(rows, skip_special_tokens=True)]
    return np.array(texts).reshape(candidate_BN.shape)
