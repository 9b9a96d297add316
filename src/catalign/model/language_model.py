"""A Hugging Face causal language model as two things: a decoder that gives hidden states, and the rows of its head.

Legend: R rows, N nodes of a row, H width, P asked positions, V vocabulary.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from catalign.catalogue.catalogue import Catalogue
from catalign.errors import UserError
from catalign.model.forest import Forest, ancestor_mask, pack_forest, pack_rows
from catalign.model.item_embedding import IntArray, ItemEmbedding

log = logging.getLogger(__name__)


class LanguageModel(nn.Module):
    """Wraps the model without changing it; adapters, merging and saving stay those of Hugging Face.

    Attributes:
        causal: the Hugging Face model, possibly a PEFT model around it.
        tokenizer: its tokenizer.
        end_token: the token that closes a title.
        shares_prefixes: whether a prefix forest is exact; found out by `check_parts`.
        context: the longest sequence the model takes, in tokens; no longer than its sliding window, if it has one,
            because up to there the window hides nothing and shared prefixes are exact.
        item_embedding: what stands for items in prompts beside their titles, see `add_item_embedding`; None, nothing.
    """

    def __init__(self, causal: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.causal = causal
        self.tokenizer = tokenizer
        self.shares_prefixes = True
        self._takes_positions = True
        self.item_embedding: ItemEmbedding | None = None
        if tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end token", where=tokenizer.name_or_path, mend="use another model")
        self.end_token = int(tokenizer.eos_token_id)
        config = self.base.config.get_text_config()
        positions = int(getattr(config, "max_position_embeddings", None) or 2048)
        self.context = min(positions, getattr(config, "sliding_window", None) or positions)
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        head = self._head()
        if type(head) is not nn.Linear:
            raise UserError(
                f"the head of the model is {type(head).__name__}, not a plain linear layer",
                mend="leave the output embedding out of the adapter's target modules",
            )

    def adapted(self, causal: PreTrainedModel | PeftModel) -> "LanguageModel":
        """The same model with an adapter on it, or a copy of it."""
        model = LanguageModel(causal, self.tokenizer)
        model.shares_prefixes, model._takes_positions = self.shares_prefixes, self._takes_positions
        model.item_embedding = self.item_embedding
        return model

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside the block, then the mode there was."""
        training = self.training
        if training or self.causal.training:  # setting it walks through all modules, a tenth of a short search
            self.eval()
        try:
            yield
        finally:
            if training:
                self.train()

    @property
    def base(self) -> PreTrainedModel:
        """The Hugging Face model itself, its adapter layers in place."""
        if isinstance(self.causal, PeftModel):
            return cast(PreTrainedModel, self.causal.get_base_model())
        return self.causal

    @property
    def decoder(self) -> nn.Module:
        """The model without its head."""
        return cast(nn.Module, self.base.get_decoder())  # type: ignore[no-untyped-call]

    def _head(self) -> nn.Linear:
        return cast(nn.Linear, self.base.get_output_embeddings())  # type: ignore[no-untyped-call]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.causal.parameters()).device

    @property
    def head_VH(self) -> torch.Tensor:
        """The head's weight."""
        return self._head().weight

    @property
    def head_bias_V(self) -> torch.Tensor | None:
        """The head's bias, where the architecture has one."""
        return self._head().bias

    @property
    def caps_logits(self) -> bool:
        """Whether `finish_logits` changes anything."""
        return self._softcap is not None

    def finish_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """What the architecture does to logits after the head (Gemma 2 caps them); elementwise."""
        if self._softcap is None:
            return logits
        return self._softcap * torch.tanh(logits / self._softcap)

    def attention_mask(self, visible: torch.Tensor) -> torch.Tensor:
        """A boolean mask (True: may be attended to) in the form that this model's attention takes.

        `sdpa` takes it as it is; `eager`, all that Gemma 2 offers, adds its mask to the scores.
        """
        if self.base.config._attn_implementation == "sdpa":
            return visible
        dtype = self.head_VH.dtype
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
            ~visible, torch.finfo(dtype).min
        )

    def item_tokens(self, catalogue: Catalogue) -> IntArray | None:
        """The token that stands behind the title of each item in a prompt (see `ItemEmbedding.tokens`), if any do."""
        return None if self.item_embedding is None else self.item_embedding.tokens(catalogue)

    def inputs(self, token_RN: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the decoder takes for these tokens: the ids or, where some may stand for items, their vectors."""
        if self.item_embedding is None:
            return {"input_ids": token_RN}
        return {"inputs_embeds": self.item_embedding(token_RN, self.base.get_input_embeddings())}

    def hidden_states(
        self, token_RN: torch.Tensor, depth_RN: torch.Tensor, end_RN: torch.Tensor | None, node_P: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states [P, H] at the flat node numbers `node_P` of a forest (see `Forest.flat_nodes`).

        With `end_RN` None the rows are plain sequences, one each, padded on the right: ordinary causal attention.
        """
        mask = None if end_RN is None else self.attention_mask(ancestor_mask(end_RN))
        return self._run(token_RN, depth_RN, mask).flatten(0, 1)[node_P]

    def rows_hidden(self, token_RN: torch.Tensor) -> torch.Tensor:
        """Hidden states [R, N, H] of plain sequences, padded on the right."""
        position_RN = torch.arange(token_RN.shape[1], device=token_RN.device).expand_as(token_RN)
        return self._run(token_RN, position_RN, None)

    def _run(self, token_RN: torch.Tensor, depth_RN: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The decoder's hidden states; recurrent architectures take neither mask nor positions."""
        placed = {"attention_mask": mask, "position_ids": depth_RN} if self._takes_positions else {}
        hidden_RNH: torch.Tensor = self.decoder(**self.inputs(token_RN), use_cache=False, **placed)[0]
        return hidden_RNH

    def forest_hidden(self, forest: Forest, node_P: torch.Tensor) -> torch.Tensor:
        """`hidden_states` of a packed forest, moved to the model's device."""
        device = self.device
        end_RN = None if forest.end_RN is None else forest.end_RN.to(device)
        return self.hidden_states(forest.token_RN.to(device), forest.depth_RN.to(device), end_RN, node_P.to(device))

    @torch.no_grad()
    def check_parts(self) -> None:
        """Compare hidden states times the head with the whole model's logits, of plain rows and of a small forest.

        Where the rows agree and the forest does not (recurrent layers, attention that is not by mask and position)
        `shares_prefixes` is turned off and the reason logged.

        Raises:
            UserError: the rows differ too, because the architecture scales its logits or has layers before the head.
        """
        # Quantised products round by what else is in the batch.
        exact = self.head_VH.dtype == torch.float32 and all(weight.is_floating_point() for weight in self.parameters())
        sequences = [np.array([0, 1, 2, 3]), np.array([0, 1, 4, 5])]  # any tokens do; two are shared
        whole_SV = self.base(input_ids=torch.from_numpy(np.stack(sequences)).to(self.device)).logits[:, -1].float()

        def agrees(forest: Forest) -> bool:
            last = forest.flat_nodes(np.arange(2), np.full(2, 3))
            try:
                hidden_SH = self.forest_hidden(forest, torch.from_numpy(last))
            except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
                return False
            parts_SV = self.finish_logits(nn.functional.linear(hidden_SH, self.head_VH, self.head_bias_V)).float()
            difference = float((parts_SV - whole_SV).abs().max() / whole_SV.abs().max())
            return difference <= (1e-3 if exact else 0.1)

        if agrees(pack_forest(sequences, budget=8)):
            return
        self.shares_prefixes = False
        rows = pack_rows(sequences)
        self._takes_positions = agrees(rows)
        if self._takes_positions or agrees(rows):
            log.warning(
                "%s: prefixes are not shared, every sequence is a row of its own (slower), because its layers do not "
                "attend by mask and position",
                type(self.base).__name__,
            )
        else:
            raise UserError(
                f"{type(self.base).__name__} computes its logits in a way that catalign does not know",
                where=self.base.name_or_path,
                mend="use a model of the Llama, Qwen, Gemma, Mistral, Phi, GPT-2, GPT-NeoX or OPT family",
            )
