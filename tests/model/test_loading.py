"""Loading, adapters, and that plain Hugging Face code reads what was saved."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from catalign.model.loading import Lora, add_lora, load_language_model, load_trained, load_weights
from tiny import tiny_causal, tiny_model, word_tokenizer

TOKENS = torch.tensor([[0, 5, 9, 7, 20, 4]])


@torch.no_grad()
def logits(causal: torch.nn.Module) -> torch.Tensor:
    output: torch.Tensor = causal.eval()(input_ids=TOKENS).logits
    return output


def scramble(model: LanguageModel) -> None:
    """Give everything trainable other values, as training would."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))


def save(model: LanguageModel, folder: Path) -> Path:
    model.causal.save_pretrained(str(folder))
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save(tiny_model("llama"), tmp_path / "base")


def test_full_weights_round_trip(base: Path, tmp_path: Path) -> None:
    model = load_language_model(str(base))
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(logits(model.causal), logits(tiny_causal("llama")))
    scramble(model)
    run = save(model, tmp_path / "run")
    expected = logits(model.causal)
    torch.testing.assert_close(logits(load_trained(run, None).causal), expected)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(run)), expected)
    assert AutoTokenizer.from_pretrained(run)("w5 w9")["input_ids"] == model.tokenizer("w5 w9")["input_ids"]
    assert not list(run.glob("*.bin")) and not list(run.glob("*.pt"))


@pytest.mark.parametrize("named", [True, False])
def test_adapter_round_trip(base: Path, tmp_path: Path, named: bool) -> None:
    model = add_lora(load_language_model(str(base)), Lora(rank=2, alpha=4), seed=0)
    scramble(model)
    run = save(model, tmp_path / "run")
    expected = logits(model.causal)
    assert (expected - logits(tiny_causal("llama"))).abs().max() > 1e-3
    loaded = load_trained(run, str(base) if named else None)
    assert not any(module.training for module in loaded.modules())
    assert isinstance(loaded.causal, PeftModel)
    torch.testing.assert_close(logits(loaded.causal), expected)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(run))
    torch.testing.assert_close(logits(plain), expected)
    assert not (run / "model.safetensors").exists()  # the adapter alone


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])  # with tied embeddings and without
@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_weights_of_a_checkpoint(tmp_path: Path, architecture: str, lora: Lora | None) -> None:
    def fresh() -> LanguageModel:
        model = tiny_model(architecture)
        return model if lora is None else add_lora(model, lora, seed=0)

    trained = fresh()
    scramble(trained)
    folder = save(trained, tmp_path / "checkpoint")
    model = fresh()
    assert (logits(model.causal) - logits(trained.causal)).abs().max() > 1e-3
    load_weights(model, folder)
    torch.testing.assert_close(logits(model.causal), logits(trained.causal))


def test_weights_of_a_checkpoint_in_parts(tmp_path: Path) -> None:
    trained = tiny_model("qwen2", seed=1)
    trained.base.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = tiny_model("qwen2")
    load_weights(model, tmp_path)
    torch.testing.assert_close(logits(model.causal), logits(trained.causal))


def test_a_fresh_adapter_changes_nothing_and_trains_alone() -> None:
    model = add_lora(tiny_model("llama"), Lora(rank=2), seed=0)
    torch.testing.assert_close(logits(model.causal), logits(tiny_causal("llama")))
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained} == {"q_proj", "v_proj"}


def test_the_seed_alone_decides_and_the_random_state_is_kept() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = add_lora(tiny_model("llama"), Lora(rank=2), seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again = add_lora(tiny_model("llama"), Lora(rank=2), seed=7)
    other = add_lora(tiny_model("llama"), Lora(rank=2), seed=8)
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert not all(map(torch.equal, first.parameters(), other.parameters()))


@pytest.mark.parametrize(
    ("architecture", "modules", "message"),
    [
        ("llama", ("q_proj", "c_attn"), "no module c_attn"),
        ("gpt2", ("q_proj", "v_proj"), "no module q_proj, v_proj"),
        ("llama", ("lm_head",), "head"),
    ],
)
def test_wrong_target_modules(architecture: str, modules: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        add_lora(tiny_model(architecture), Lora(target_modules=modules), seed=0)
    assert "\n" not in str(caught.value)


def test_the_suggested_modules_can_be_adapted() -> None:
    for architecture in ("gpt2", "llama", "opt", "phi", "gpt-neox"):
        with pytest.raises(UserError) as caught:
            add_lora(tiny_model(architecture), Lora(target_modules=("nothing",)), seed=0)
        suggested = tuple(str(caught.value).split("it has ")[1].split(", "))
        adapted = add_lora(tiny_model(architecture), Lora(target_modules=suggested), seed=0)
        assert any(weight.requires_grad for weight in adapted.parameters())


def test_wrong_folders(tmp_path: Path) -> None:
    cases = {"empty": {}, "no weights": {}, "not json": {}, "unknown": {}, "damaged": {}}
    for name in cases:
        (tmp_path / name).mkdir()
    good = save(tiny_model("llama"), tmp_path / "good")
    for name in ("no weights", "damaged"):
        for file in good.iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "no weights" / "model.safetensors").unlink()
    weights = (tmp_path / "damaged" / "model.safetensors").read_bytes()
    (tmp_path / "damaged" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (tmp_path / "not json" / "config.json").write_text("{")
    (tmp_path / "unknown" / "config.json").write_text('{"model_type": "nobody-knows"}')
    for name in cases:
        with pytest.raises(UserError) as caught:
            load_language_model(str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    tiny_causal("llama").save_pretrained(tmp_path)
    with pytest.raises(UserError):
        load_language_model(str(tmp_path))


def test_weights_of_another_size(tmp_path: Path) -> None:
    folder = save(tiny_model("llama"), tmp_path / "base")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"intermediate_size": 32', '"intermediate_size": 48'))
    with pytest.raises(UserError):
        load_language_model(str(folder))


def test_an_adapter_without_its_base(tmp_path: Path) -> None:
    model = add_lora(tiny_model("llama"), Lora(rank=2), seed=0)
    run = save(model, tmp_path / "run")
    with pytest.raises(UserError):
        load_trained(run, str(tmp_path / "gone"))


def test_an_adapter_on_another_base(base: Path, tmp_path: Path) -> None:
    run = save(add_lora(tiny_model("gpt2"), Lora(rank=2, target_modules=("c_attn",)), seed=0), tmp_path / "run")
    with pytest.raises(UserError):
        load_trained(run, str(base))


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3", "gpt2", "opt", "phi"])
def test_other_architectures_load(tmp_path: Path, architecture: str) -> None:
    folder = save(LanguageModel(tiny_causal(architecture), word_tokenizer()), tmp_path / "model")
    torch.testing.assert_close(logits(load_language_model(str(folder)).causal), logits(tiny_causal(architecture)))
