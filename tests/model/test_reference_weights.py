"""The frozen reference beside the weights that train, and the digests that identify it."""

from pathlib import Path

import pytest
import torch

from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from catalign.model.loading import Lora, add_lora, load_language_model, load_trained, save_weights
from catalign.model.reference import (
    adapter_digest,
    check_tokenizer,
    model_digest,
    reference_weights,
    tokenizer_digest,
    train_on,
)
from tiny import tiny_model, word_tokenizer

TOKENS = torch.tensor([[5, 6, 7, 8]])


def shake(model: LanguageModel) -> None:
    """Change everything that trains."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.3)


@torch.no_grad()
def hidden(model: LanguageModel) -> torch.Tensor:
    return model.rows_hidden(TOKENS)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A saved base model, and an adapter trained on it."""
    save_weights(tiny_model(), tmp_path / "base")
    base = load_language_model(str(tmp_path / "base"))
    adapted = add_lora(base, Lora(rank=2, dropout=0), seed=0)
    shake(adapted)
    save_weights(adapted, tmp_path / "adapter")
    return tmp_path / "base", tmp_path / "adapter"


def test_an_adapter_trains_on_beside_its_frozen_copy(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = folders
    model = load_trained(adapter, str(base))
    before = hidden(model)
    train_on(model, adapter)
    torch.testing.assert_close(hidden(model), before, rtol=0, atol=0)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained and all(".default." in name for name in trained)
    shake(model)
    after = hidden(model)
    assert not torch.allclose(after, before, atol=1e-3)
    with reference_weights(model):
        torch.testing.assert_close(hidden(model), before, rtol=0, atol=0)
        assert not any(weight.requires_grad for weight in model.parameters())
    torch.testing.assert_close(hidden(model), after, rtol=0, atol=0)
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == trained

    save_weights(model, tmp_path / "new")
    assert not [path for path in (tmp_path / "new").iterdir() if path.is_dir()]  # the reference is not saved
    torch.testing.assert_close(hidden(load_trained(tmp_path / "new", str(base))), after)


def test_the_reference_returns_even_after_a_failure(folders: tuple[Path, Path]) -> None:
    model = load_trained(folders[1], str(folders[0]))
    train_on(model, folders[1])
    shake(model)
    after = hidden(model)
    with pytest.raises(RuntimeError), reference_weights(model):
        raise RuntimeError
    torch.testing.assert_close(hidden(model), after, rtol=0, atol=0)


def test_full_weights_are_the_reference_of_a_new_adapter(folders: tuple[Path, Path]) -> None:
    model = load_language_model(str(folders[0]))
    before = hidden(model)
    model = add_lora(model, Lora(rank=2, dropout=0), seed=1)
    shake(model)
    after = hidden(model)
    assert not torch.allclose(after, before, atol=1e-3)
    with reference_weights(model):
        torch.testing.assert_close(hidden(model), before, rtol=0, atol=0)
    torch.testing.assert_close(hidden(model), after, rtol=0, atol=0)


def test_digests_tell_weights_apart(folders: tuple[Path, Path]) -> None:
    base, adapter = folders
    plain = load_language_model(str(base))
    alone = model_digest(plain)
    adapted = load_trained(adapter, str(base))
    assert adapter_digest(plain) is None and adapter_digest(adapted) is None
    assert model_digest(adapted) == alone  # an adapter on it changes nothing
    train_on(adapted, adapter)
    first = adapter_digest(adapted)
    shake(adapted)
    assert first is not None and adapter_digest(adapted) == first and model_digest(adapted) == alone
    shake(plain)
    assert model_digest(plain) != alone


def test_a_half_precision_model_has_a_digest() -> None:
    assert model_digest(tiny_model().bfloat16()) != model_digest(tiny_model())


def test_tokenizers_are_told_apart(tmp_path: Path) -> None:
    model = tiny_model()
    word_tokenizer().save_pretrained(tmp_path / "same")
    check_tokenizer(model, tmp_path / "same")
    word_tokenizer(words=["lamp"]).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="other: this run was trained with another tokenizer than its model has now"):
        check_tokenizer(model, tmp_path / "other")
    assert tokenizer_digest(word_tokenizer(begin=False)) != tokenizer_digest(word_tokenizer())
