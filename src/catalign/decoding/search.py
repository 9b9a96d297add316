"""Constrained beam search that walks the trie: every beam ends at a real title.

A beam is a trie node and a score. In one step every live beam chooses among the children of its node; a forced run
(single children) is followed at once, so the next step stands at a branching node again. The prompts are read once
(`prompts.py`); the tokens of the beams are appended to them, and a mask tells which of them each beam sees.

Legend: B users, K beams, T prompt slots, G slots appended to them, M tokens fed in a step, X all slots, E candidates,
H width, A rows of the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from catalign.decoding.prompt_states import PromptStates
from catalign.decoding.prompts import Prompts
from catalign.decoding.scores import ScoreMode, increments_named
from catalign.decoding.trie_tensors import Exclusions, Inclusions, TrieTensors
from catalign.model.language_model import LanguageModel
from catalign.objectives import valid_logits

NEVER = float("-inf")
LOGITS_IN_CACHE, LOGITS_IN_MEMORY = 2**18, 2**26  # of the whole vocabulary at once, on a CPU and elsewhere
HEAD_ROWS = 256  # fewer at once make a poor matrix product
WORTH_A_CALL = 64  # padding tokens that cost more than a further call of a small model on a CPU


@dataclass(frozen=True)
class FoundTitles:
    """The best titles of each user, best first.

    Attributes:
        title_BK: titles (leaves of the trie), -1 where a user has fewer than K.
        score_BK: log-probabilities, -inf where there is no title.
    """

    title_BK: torch.Tensor
    score_BK: torch.Tensor


@torch.no_grad()
def search_titles(
    model: LanguageModel,
    trie: TrieTensors,
    prompts: Sequence[npt.NDArray[np.integer]],
    *,
    beams: int,
    score: ScoreMode = "valid",
    length_penalty: float = 0.0,
    exclusions: Exclusions | Inclusions | None = None,
    states: PromptStates | None = None,
) -> FoundTitles:
    """Find the best titles for a batch of prompts.

    Args:
        model: the language model.
        trie: the trie on the model's device.
        prompts: B token arrays.
        beams: K, both the width of the search and the number of titles returned.
        score: `valid` takes the softmax over the children of a node (mask first; matches MSL training), `full` over the
            whole vocabulary (the order of the published decoders); or the name of one from outside, see
            `scores.Increments`.
        length_penalty: a title's score is its log-probability divided by (its tokens, the end token among them) to this
            power; 0 leaves log-probabilities, above 0 favours long titles.
        exclusions: what may not be recommended to whom, or what alone may be.
        states: see `Prompts`.
    """
    search = _Search(model, trie, prompts, beams, score, length_penalty, states)
    while search.expand(exclusions):
        pass
    return FoundTitles(search.title_BK, search.done_BK)


def feeding_ranges(width_B: npt.NDArray[np.integer], worth: int) -> list[tuple[int, int]]:
    """Ranges of slots to feed in one call each, so that the many do not wait for the one who has most tokens.

    A call for the slots start..stop is made for the users who have more than `start` tokens.

    Args:
        width_B: tokens of each user.
        worth: empty slots that a further call must save.
    """
    stops, start, most = np.unique(width_B), 0, int(width_B.max())
    ranges = []
    while start < most:
        stops = stops[stops > start]
        users, users_left = np.count_nonzero(width_B > start), np.count_nonzero(width_B[:, None] > stops, axis=0)
        saved = (users - users_left) * (most - stops)
        stop = int(stops[saved.argmax()]) if saved.max() >= worth else most
        ranges.append((start, stop))
        start = stop
    return ranges


class _Search:
    """The state of one batch. A beam that does not exist has score -inf."""

    def __init__(
        self,
        model: LanguageModel,
        trie: TrieTensors,
        prompts: Sequence[npt.NDArray[np.integer]],
        beams: int,
        score: ScoreMode,
        length_penalty: float,
        states: PromptStates | None,
    ) -> None:
        self.model, self.trie, self.beams, self.score = model, trie, beams, score
        self.increments = None if score == "full" else increments_named(score)
        self.length_penalty = length_penalty
        # No title below an open beam can score more than the beam's log-probability divided by this.
        self.longest_share = max(float(trie.depth.max()) ** length_penalty, 1.0)
        device = model.device
        # A head in float32 is used as it is; of another the rows that titles need are converted once.
        plain = model.head_VH.dtype == torch.float32
        self.symbol = trie.token if plain else trie.symbol
        self.head_AH = model.head_VH if plain else model.head_VH[trie.alphabet].float()
        bias_V = model.head_bias_V
        self.bias_A = bias_V if plain or bias_V is None else bias_V[trie.alphabet].float()
        users = len(prompts)
        self.user_B = torch.arange(users, device=device)
        self.title_BK = torch.full((users, beams), -1, device=device)
        self.done_BK = torch.full((users, beams), NEVER, device=device)
        if model.shares_prefixes:
            self.prompts = Prompts(model, prompts, states)
            self.hidden_BKH = self.prompts.hidden_BH[:, None]
        else:
            self._read_rows(prompts)
        root_B1 = torch.zeros(users, 1, dtype=torch.int64, device=device)
        none_B1 = torch.zeros(users, 1, device=device)
        self.node_BK, self.score_BK = root_B1, none_B1
        self.visible_BKG = torch.zeros(users, 1, 0, dtype=torch.bool, device=device)

    def _read_rows(self, prompts: Sequence[npt.NDArray[np.integer]]) -> None:
        """Run the prompts of a model that cannot share prefixes: nothing is kept, every step reads them again."""
        device = self.model.device
        self.length_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
        padded_BT = np.zeros((len(prompts), max(map(len, prompts))), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            padded_BT[row, : len(prompt)] = prompt
        self.token_BT = torch.from_numpy(padded_BT).to(device)
        self.hidden_BKH = self.model.rows_hidden(self.token_BT)[self.user_B, self.length_B - 1][:, None]

    def _decode_rows(self, place_BM: torch.Tensor, depth_BM: torch.Tensor, filled_BM: torch.Tensor) -> torch.Tensor:
        """Hidden states [B, M, H] of the fed tokens, each from a row of its own that reads prompt and title again."""
        user_F, slot_F = filled_BM.nonzero(as_tuple=True)
        place_F, depth_F = place_BM[user_F, slot_F], depth_BM[user_F, slot_F]
        length_F = self.length_B[user_F]
        step_X = torch.arange(int((length_F + depth_F).max()), device=place_F.device)
        title_FX = (step_X - length_F[:, None]).clamp(min=0).minimum(depth_F[:, None] - 1)
        title_token_FX = self.trie.token[self.trie.path_node[(place_F - depth_F + 1)[:, None] + title_FX]]
        prompt_token_FX = self.token_BT[user_F[:, None], step_X.clamp(max=self.token_BT.shape[1] - 1)]
        token_FX = torch.where(step_X < length_F[:, None], prompt_token_FX, title_token_FX)
        hidden_FXH = self.model.rows_hidden(token_FX)
        last_FH = hidden_FXH[torch.arange(len(user_F), device=user_F.device), length_F + depth_F - 1]
        return last_FH.new_zeros(*filled_BM.shape, last_FH.shape[1]).index_put((user_F, slot_F), last_FH)

    def expand(self, exclusions: Exclusions | Inclusions | None) -> bool:
        """Let every live beam choose among its children; returns whether anything is left to do."""
        best_open_B = self.score_BK.amax(dim=1) / self.longest_share
        open_B = best_open_B > self.done_BK[:, -1]  # nothing below the last title can pass it any more
        alive_BK = (self.score_BK > NEVER) & open_B[:, None]
        user_L, beam_L = alive_BK.nonzero(as_tuple=True)
        if len(user_L) == 0:
            return False
        node_L = self.node_BK[user_L, beam_L]
        start_L = self.trie.child_start[node_L]
        children_L = self.trie.child_start[node_L + 1] - start_L
        live_E = torch.repeat_interleave(children_L)
        offset_L = children_L.cumsum(0) - children_L
        child_E = torch.arange(len(live_E), device=live_E.device) + (start_L - offset_L)[live_E]
        score_E = self.score_BK[user_L, beam_L][live_E] + self._log_probabilities(
            self.hidden_BKH[user_L, beam_L], live_E, child_E
        )
        user_E, beam_E = user_L[live_E], beam_L[live_E]
        if exclusions is not None:
            score_E = score_E.masked_fill(~exclusions.open(user_E, child_E), NEVER)
        else:
            score_E = score_E.masked_fill(self.trie.items_below[child_E] == 0, NEVER)
        candidates = self._best(user_E, score_E, child_E, beam_E)
        self._go_on(*candidates)
        return True

    def _log_probabilities(self, hidden_LH: torch.Tensor, live_E: torch.Tensor, child_E: torch.Tensor) -> torch.Tensor:
        """Log-probability of every candidate child given its beam."""
        symbol_E = self.symbol[child_E]
        logits_E = valid_logits(hidden_LH.float(), self.head_AH, live_E, symbol_E, self.bias_A)
        logits_E = self.model.finish_logits(logits_E)
        if self.increments is None:
            return logits_E - self._vocabulary_logsumexp(hidden_LH)[live_E]
        return self.increments(logits_E, live_E, len(hidden_LH))

    def _vocabulary_logsumexp(self, hidden_LH: torch.Tensor) -> torch.Tensor:
        """log sum exp of the logits of the whole vocabulary, a part of the head at a time; shape [L]."""
        head_VH, bias_V = self.model.head_VH, self.model.head_bias_V
        at_once = LOGITS_IN_CACHE if hidden_LH.device.type == "cpu" else LOGITS_IN_MEMORY
        rows = max(at_once // len(hidden_LH), HEAD_ROWS)
        parts = []
        for start in range(0, len(head_VH), rows):
            bias = None if bias_V is None else bias_V[start : start + rows]
            logits = torch.nn.functional.linear(hidden_LH.to(head_VH.dtype), head_VH[start : start + rows], bias)
            finished = self.model.finish_logits(logits.float())
            # torch's log_softmax takes a third of the time of its logsumexp on a CPU.
            parts.append(finished[:, 0] - finished.log_softmax(dim=-1)[:, 0])
        return torch.stack(parts).logsumexp(dim=0)

    def _full_log_probability(self, hidden_LH: torch.Tensor, token_L: torch.Tensor) -> torch.Tensor:
        """Log-probability of one token per row under the whole vocabulary; shape [L]."""
        logits_L = (hidden_LH.float() * self.model.head_VH[token_L].float()).sum(dim=-1)
        if self.model.head_bias_V is not None:
            logits_L = logits_L + self.model.head_bias_V[token_L].float()
        return self.model.finish_logits(logits_L) - self._vocabulary_logsumexp(hidden_LH)

    def _best(
        self, user_E: torch.Tensor, score_E: torch.Tensor, child_E: torch.Tensor, beam_E: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The 2K best candidates of each user (K may end here, so that K go on): child, parent beam and score."""
        count_B = torch.bincount(user_E, minlength=len(self.user_B))
        column_E = torch.arange(len(user_E), device=user_E.device) - (count_B.cumsum(0) - count_B)[user_E]
        width = int(count_B.max())
        dense_BE = torch.full((len(self.user_B), width), NEVER, device=score_E.device)
        dense_BE[user_E, column_E] = score_E
        index_BE = torch.zeros(dense_BE.shape, dtype=torch.int64, device=user_E.device)
        index_BE[user_E, column_E] = torch.arange(len(user_E), device=user_E.device)
        score_BC, column_BC = dense_BE.topk(min(2 * self.beams, width), dim=1)
        chosen_BC = index_BE.gather(1, column_BC)
        return child_E[chosen_BC], beam_E[chosen_BC], score_BC

    def _go_on(self, node_BC: torch.Tensor, parent_BC: torch.Tensor, score_BC: torch.Tensor) -> None:
        """Follow the chosen children to the ends of their forced runs; titles that end there are done.

        The K best of the others go on. With full scores the tokens of a run count, so also those that end go through
        the model before they are done.
        """
        end_BC = self.trie.run_end[node_BC]
        ends_BC = self.trie.leaf_title[end_BC] >= 0
        ending_BC, going_BC = score_BC.masked_fill(~ends_BC, NEVER), score_BC.masked_fill(ends_BC, NEVER)
        if self.score != "full":
            self._finish(end_BC, ending_BC)
            ending_BC = ending_BC.masked_fill(ends_BC, NEVER)
        worst_B1 = going_BC.topk(min(self.beams, going_BC.shape[1]), dim=1).values[:, -1:]
        score_BC = torch.maximum(ending_BC, going_BC.masked_fill(going_BC < worst_B1, NEVER))
        late_BC = score_BC / self.longest_share <= self.done_BK[:, -1:]  # as in `expand`
        score_BC = score_BC.masked_fill(late_BC, NEVER)
        fed = max(int((score_BC > NEVER).sum(dim=1).max()), 1)
        score_BK, order_BK = score_BC.topk(fed, dim=1)
        node_BK, parent_BK = node_BC.gather(1, order_BK), parent_BC.gather(1, order_BK)
        self._feed(node_BK, parent_BK, score_BK)
        if self.score == "full":
            ends_BK = self.trie.leaf_title[self.node_BK] >= 0
            self._finish(self.node_BK, self.score_BK.masked_fill(~ends_BK, NEVER))
            self.score_BK = self.score_BK.masked_fill(ends_BK, NEVER)

    def _finish(self, leaf_BC: torch.Tensor, score_BC: torch.Tensor) -> None:
        """Merge titles that ended into the K best so far."""
        title_BC = torch.where(score_BC > NEVER, self.trie.leaf_title[leaf_BC], -1)
        if self.length_penalty:
            score_BC = score_BC / self.trie.depth[leaf_BC].clamp(min=1) ** self.length_penalty
        score_BX = torch.cat([self.done_BK, score_BC], dim=1)
        title_BX = torch.cat([self.title_BK, title_BC], dim=1)
        self.done_BK, order_BK = score_BX.topk(self.beams, dim=1)
        self.title_BK = title_BX.gather(1, order_BK)

    def _feed(self, node_BK: torch.Tensor, parent_BK: torch.Tensor, score_BK: torch.Tensor) -> None:
        """Run the tokens of the chosen nodes and their forced runs through the model, as branches beside each other."""
        end_BK = self.trie.run_end[node_BK]
        first_BK, last_BK = self.trie.depth[node_BK], self.trie.depth[end_BK]
        last_BK = last_BK - (self.trie.leaf_title[end_BK] >= 0).long()  # an end token is never read
        length_BK = (last_BK - first_BK + 1).clamp(min=0).masked_fill(score_BK == NEVER, 0)
        stop_BK = length_BK.cumsum(1)
        width = int(stop_BK[:, -1].max())
        self.node_BK, self.score_BK = end_BK, score_BK
        visible_BKG = self.visible_BKG.gather(1, parent_BK[..., None].expand(-1, -1, self.visible_BKG.shape[2]))
        if width == 0:  # every beam has come to the end of a title
            return

        slot_M = torch.arange(width, device=node_BK.device)
        beam_BM = (slot_M[None, :, None] >= stop_BK[:, None, :]).sum(-1)
        filled_BM = beam_BM < node_BK.shape[1]
        beam_BM = beam_BM.clamp(max=node_BK.shape[1] - 1)
        step_BM = slot_M - (stop_BK - length_BK).gather(1, beam_BM)
        depth_BM = first_BK.gather(1, beam_BM) + step_BM
        title_BM = self.trie.title_below[node_BK].gather(1, beam_BM)
        place_BM = (self.trie.path_start[title_BM] + depth_BM - 1).masked_fill(~filled_BM, 0)
        token_BM = self.trie.token[self.trie.path_node[place_BM]].masked_fill(~filled_BM, 0)
        depth_BM = depth_BM.masked_fill(~filled_BM, 1)

        if self.model.shares_prefixes:
            own_BMM = (beam_BM[:, :, None] == beam_BM[:, None, :]) & (slot_M[None, :] <= slot_M[:, None])
            before_BMG = visible_BKG.gather(1, beam_BM[..., None].expand(-1, -1, visible_BKG.shape[2]))
            prompt_BMT = self.prompts.seen_BT[:, None].expand(-1, width, -1)
            visible_BMX = torch.cat([prompt_BMT, before_BMG, own_BMM], dim=2)
            position_BM = self.prompts.length_B[:, None] + depth_BM - 1
            hidden_BMH = self._append(token_BM, position_BM, visible_BMX, stop_BK[:, -1])
        else:
            hidden_BMH = self._decode_rows(place_BM, depth_BM, filled_BM)

        mine_BKM = (beam_BM[:, None, :] == torch.arange(node_BK.shape[1], device=node_BK.device)[:, None]) & filled_BM[
            :, None
        ]
        self.visible_BKG = torch.cat([visible_BKG, mine_BKM], dim=2)
        if self.score == "full":
            self._add_forced_scores(hidden_BMH, place_BM, beam_BM, step_BM, filled_BM, end_BK)
        # A beam that was fed nothing has ended; what it gets here is not used.
        last_BKH = (stop_BK - 1).clamp(min=0)[..., None].expand(-1, -1, hidden_BMH.shape[2])
        self.hidden_BKH = hidden_BMH.gather(1, last_BKH)

    def _append(
        self, token_BM: torch.Tensor, position_BM: torch.Tensor, visible_BMX: torch.Tensor, width_B: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states [B, M, H] of the fed tokens, of which each user has the first `width_B`.

        On a CPU, where empty slots cost as much as tokens, those who have many get further calls of their own.
        """
        users, width = token_BM.shape
        if users == 1 or token_BM.device.type != "cpu":
            return self.prompts.append(token_BM, position_BM, visible_BMX)
        before = visible_BMX.shape[2] - width
        hidden_BMH = self.hidden_BKH.new_zeros(users, width, self.hidden_BKH.shape[2])
        for start, stop in feeding_ranges(width_B.numpy(), WORTH_A_CALL):
            user_B = (width_B > start).nonzero()[:, 0]
            if (users - len(user_B)) * (stop - start) < WORTH_A_CALL:
                user_B = self.user_B  # whole rows are not copied
            chosen = (user_B, slice(start, stop))
            hidden_BMH[chosen] = self.prompts.append(
                token_BM[chosen], position_BM[chosen], visible_BMX[*chosen, : before + stop],
                None if len(user_B) == users else user_B,
            )  # fmt: skip
        return hidden_BMH

    def _add_forced_scores(
        self,
        hidden_BMH: torch.Tensor,
        place_BM: torch.Tensor,
        beam_BM: torch.Tensor,
        step_BM: torch.Tensor,
        filled_BM: torch.Tensor,
        end_BK: torch.Tensor,
    ) -> None:
        """Add the full-vocabulary log-probabilities of the forced tokens that follow the fed ones."""
        depth_BM = self.trie.depth[self.trie.path_node[place_BM]]
        predicts_BM = filled_BM & (depth_BM < self.trie.depth[end_BK].gather(1, beam_BM))
        user_F, slot_F = predicts_BM.nonzero(as_tuple=True)
        if len(user_F) == 0:
            return
        token_F = self.trie.token[self.trie.path_node[place_BM[user_F, slot_F] + 1]]
        score_F = self._full_log_probability(hidden_BMH[user_F, slot_F], token_F)
        self.score_BK = self.score_BK.index_put((user_F, beam_BM[user_F, slot_F]), score_F, accumulate=True)
