"""Loading language models and adapters by name or folder, and putting new adapters on."""

from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import load_peft_weights, set_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.trainer_utils import load_sharded_checkpoint

from catalign.errors import UserError
from catalign.model.item_embedding import PROJECTOR, VECTORS, ItemEmbedding, ItemVectors
from catalign.model.language_model import LanguageModel
from catalign.model.precision import choose_device
from catalign.model.sharding import cut, gathered_weights, is_sharded
from catalign.processes import is_main

TRAINED = "default"  # PEFT's own name of the first adapter, and of one that is loaded
LOADING_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError)  # absent, of another kind or size, damaged


class Lora(BaseModel):
    """Low-rank adaptation; the defaults are those of the MSL and SOFT papers.

    Attributes:
        rank: r.
        alpha: the update is scaled by alpha / r.
        dropout: on the adapter's input. With shared prefixes the shared tokens draw one mask for all their sequences.
        target_modules: names of the layers to adapt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")


def load_language_model(
    name_or_folder: str,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    quantize: BitsAndBytesConfig | None = None,
) -> LanguageModel:
    """Load a causal language model and its tokenizer, in evaluation mode.

    Args:
        name_or_folder: a Hugging Face folder, or the name of a model on the hub.
        dtype: of the weights.
        trust_remote_code: run code that comes with the model; off unless asked for.
        quantize: keep the weights of linear layers in few bits, on the accelerator (`model.quantized`).

    Raises:
        UserError: it cannot be found, is not a causal language model, or is one that cannot be taken apart.
    """
    is_folder = Path(name_or_folder).is_dir()
    if is_folder and not (Path(name_or_folder) / "config.json").is_file():
        raise UserError("is not a model folder (no config.json)", where=name_or_folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_folder, trust_remote_code=trust_remote_code)
        placed = {} if quantize is None else {"quantization_config": quantize, "device_map": {"": choose_device()}}
        causal = AutoModelForCausalLM.from_pretrained(
            name_or_folder, dtype=dtype, trust_remote_code=trust_remote_code, **placed
        )
    except LOADING_ERRORS as error:
        reason = str(error).strip().splitlines()[0]
        mend = "make one with catalign model init" if not is_folder else None
        raise UserError(
            f"cannot be loaded as a causal language model ({reason})", where=name_or_folder, mend=mend
        ) from error
    model = LanguageModel(causal, tokenizer).eval()
    model.check_parts()
    return model


def add_lora(model: LanguageModel, lora: Lora, seed: int) -> LanguageModel:
    """Put a fresh adapter on; everything else is frozen.

    Raises:
        UserError: a target module that the model does not have, or one that the head needs unadapted.
    """
    endings = {name.rsplit(".", 1)[-1] for name, _ in model.causal.named_modules()}
    missing = [name for name in lora.target_modules if name not in endings]
    if missing:
        head = model.base.get_output_embeddings()  # type: ignore[no-untyped-call]
        linear = sorted(
            {
                name.rsplit(".", 1)[-1]
                for name, module in model.causal.named_modules()
                if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
            }
        )
        raise UserError(
            f"the model has no module {', '.join(missing)}",
            where="--target-modules",
            mend=f"it has {', '.join(linear)}",
        )
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # annotated int, used as a factor
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.adapted(get_peft_model(model.base, config))


@torch.no_grad()
def add_item_embedding(model: LanguageModel, vectors: ItemVectors, seed: int = 0) -> None:
    """Let item tokens stand for items (`model.item_embedding`), with a fresh projector; before any adapter.

    Raises:
        UserError: the architecture reads more of a token than its input embedding.
    """
    token_RN = torch.arange(4, device=model.device)[None]  # any tokens do
    by_id = model.rows_hidden(token_RN)
    word = cast(nn.Embedding, model.base.get_input_embeddings())
    model.item_embedding = ItemEmbedding(vectors, word, seed)
    try:
        same = torch.allclose(model.rows_hidden(token_RN), by_id)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        same = False
    if not same:
        raise UserError(
            f"{type(model.base).__name__} does not take vectors in place of tokens",
            where="--item-embeddings",
            mend="leave the option out or use another model",
        )


def load_trained(
    folder: Path,
    base_name: str | None,
    *,
    dtype: torch.dtype = torch.float32,
    quantize: BitsAndBytesConfig | None = None,
) -> LanguageModel:
    """Load what a run saved: full weights, or its adapter on the base model it was trained on; its item embeddings.

    Args:
        folder: the run folder.
        base_name: for an adapter, the base model; by default what the adapter's own configuration names.
        dtype: of the weights.
        quantize: as for `load_language_model`, for the base of an adapter.

    Raises:
        UserError: model or adapter cannot be loaded, or do not fit each other.
    """
    adapted = (folder / "adapter_config.json").is_file()
    if adapted and base_name is None:
        base_name = LoraConfig.from_pretrained(str(folder)).base_model_name_or_path
    base = load_language_model(
        str(base_name if adapted else folder), dtype=dtype, quantize=quantize if adapted else None
    )
    if (folder / PROJECTOR).is_file() or (folder / VECTORS).is_file():
        add_item_embedding(base, ItemVectors.read(folder))
        assert base.item_embedding is not None
        base.item_embedding.load_projector(folder)
    if not adapted:
        return base
    try:
        return base.adapted(PeftModel.from_pretrained(base.base, str(folder))).eval()
    except LOADING_ERRORS as error:
        raise UserError(f"the adapter does not fit the base model {base.base.name_or_path}", where=folder) from error


def save_weights(model: LanguageModel, folder: Path) -> None:
    """Save the Hugging Face model and its tokenizer; of a PEFT model the trained adapter alone. And the projector.

    Of several processes the main one writes; all must call this, for their parts are put together where they have some.
    """
    cut_up = is_sharded(model.causal)
    weights = gathered_weights(model.causal) if cut_up else None
    projector = None if model.item_embedding is None else model.item_embedding.projector
    projector_weights = gathered_weights(projector) if cut_up and projector is not None else None
    if not is_main():
        return
    if isinstance(model.causal, PeftModel):
        model.causal.save_pretrained(str(folder), selected_adapters=[TRAINED], state_dict=weights)
    else:
        model.causal.save_pretrained(str(folder), state_dict=weights)
    if model.item_embedding is not None:
        model.item_embedding.save_projector(folder, projector_weights)
    model.tokenizer.save_pretrained(folder)


def load_weights(model: LanguageModel, folder: Path) -> None:
    """Read the weights of a checkpoint of this very model into it; where they are cut, each process takes its part."""
    if model.item_embedding is not None:
        model.item_embedding.load_projector(folder)
    cut_up = is_sharded(model.causal)
    device = "cpu" if cut_up else str(model.device)
    if isinstance(model.causal, PeftModel):
        weights = load_peft_weights(str(folder), device=device)
        set_peft_model_state_dict(model.causal, {name: cut(weight, model.causal) for name, weight in weights.items()})
    elif cut_up:
        for file in sorted(folder.glob("model*.safetensors")):  # several, where the model is large
            weights = {name: cut(weight, model.causal) for name, weight in load_file(file).items()}
            model.causal.load_state_dict(weights, strict=False)  # tied weights are there once
    elif (folder / "model.safetensors").is_file():
        load_model(model.causal, folder / "model.safetensors", device=device)
    else:
        load_sharded_checkpoint(model.causal, str(folder))  # type: ignore[no-untyped-call]
