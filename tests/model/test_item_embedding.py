"""Item tokens: what they are, what they become, and that nothing else changes."""

import copy
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from catalign.errors import UserError
from catalign.model.forest import pack_forest, pack_rows
from catalign.model.item_embedding import NO_TOKEN, PROJECTOR, VECTORS, ItemVectors
from catalign.model.language_model import LanguageModel
from catalign.model.loading import (
    Lora,
    add_item_embedding,
    add_lora,
    load_language_model,
    load_trained,
    load_weights,
    save_weights,
)
from catalign.model.reference import items_digest, model_digest, reference_weights, train_on
from tiny import ARCHITECTURES, UNSHARED, VOCABULARY, model_with_items, tiny_catalogue, tiny_model, tiny_vectors

V = VOCABULARY
TITLES = [(5,), (5, 6), (7, 8), (9,)]
SEQUENCES = [[0, 5, 1, V, 5, 6, 1, V + 1, 7], [0, 5, 1, V, 5, 6, 1, V + 2], [0, 5, 1, V + 2, 9], [3, 4]]
ARRAYS = [np.array(sequence, dtype=np.int32) for sequence in SEQUENCES]
FRAME = pl.DataFrame({"item_id": ["a", "b"], "embedding": [[1.0, 2.0], [3.0, 4.0]]})


def weights_of(model: LanguageModel) -> torch.nn.Sequential:
    assert model.item_embedding is not None
    return model.item_embedding.projector


def shake(model: LanguageModel) -> None:
    """Change everything that trains."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))


def hidden(model: LanguageModel) -> torch.Tensor:
    """Hidden states of all tokens, one plain row after the other."""
    with torch.no_grad(), model.evaluating():
        rows = pack_rows(ARRAYS)
        node = torch.from_numpy(rows.flat_nodes(*places()))
        return model.forest_hidden(rows, node)


def places() -> tuple[np.ndarray, np.ndarray]:
    sequence = np.repeat(np.arange(len(ARRAYS)), [len(tokens) for tokens in ARRAYS])
    return sequence, np.concatenate([np.arange(len(tokens)) for tokens in ARRAYS])


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / VECTORS)
    for place in (tmp_path, tmp_path / VECTORS):  # Float64, from the folder and from the file
        read = ItemVectors.read(place)
        assert read.item_ids == ["a", "b"] and read.vector_IW.dtype == np.float32
        np.testing.assert_array_equal(read.vector_IW, [[1, 2], [3, 4]])
    FRAME.with_columns(pl.col("embedding").cast(pl.Array(pl.Float32, 2))).write_parquet(tmp_path / "array.parquet")
    np.testing.assert_array_equal(ItemVectors.read(tmp_path / "array.parquet").vector_IW, [[1, 2], [3, 4]])
    read.save(tmp_path)
    assert pl.read_parquet(tmp_path / VECTORS).schema == {"item_id": pl.String, "embedding": pl.List(pl.Float32)}
    np.testing.assert_array_equal(ItemVectors.read(tmp_path).vector_IW, read.vector_IW)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (FRAME.rename({"embedding": "vector"}), "has no column 'embedding'; its columns are item_id, vector"),
        (FRAME.rename({"item_id": "item"}), "has no column 'item_id'"),
        (FRAME.with_columns(item_id=pl.Series([1, 2])), "the column 'item_id' holds Int64; write the ids as text"),
        (FRAME.with_columns(embedding=pl.Series([1.0, 2.0])), "the column 'embedding' holds Float64; write lists"),
        (FRAME.with_columns(embedding=pl.Series([[1], [2]])), "the column 'embedding' holds List(Int64)"),
        (FRAME.with_columns(embedding=pl.Series([[1.0], [2.0, 3.0]])), 'item "b" has 2 numbers, item "a" has 1'),
        (FRAME.with_columns(embedding=pl.Series([[1.0], None])), 'item "b" has 0 numbers, item "a" has 1'),
        (FRAME.with_columns(embedding=pl.Series([[], []], dtype=pl.List(pl.Float32))), 'item "a" has 0 numbers'),
        (FRAME.with_columns(embedding=pl.Series([[1.0], [float("nan")]])), 'of item "b" is not finite'),
        (FRAME.with_columns(embedding=pl.Series([[None], [1.0]])), 'of item "a" is not finite'),
        (FRAME.with_columns(embedding=pl.Series([[1.0], [1e300]])), 'of item "b" is not finite'),
        (FRAME.with_columns(item_id=pl.Series(["a", "a"])), 'the item id "a" occurs more than once'),
        (FRAME.with_columns(item_id=pl.Series(["a", None])), "row 1 has no item_id"),
        (FRAME.clear(), "holds no item embeddings"),
    ],
)
def test_a_file_that_is_no_table_of_embeddings(tmp_path: Path, frame: pl.DataFrame, words: str) -> None:
    path = tmp_path / "e.parquet"
    frame.write_parquet(path)
    with pytest.raises(UserError) as caught:
        ItemVectors.read(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "e.parquet").write_text("no")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        ItemVectors.read(tmp_path / "e.parquet")
    with pytest.raises(UserError, match=r"none\.parquet: no such file"):
        ItemVectors.read(tmp_path / "none.parquet")
    with pytest.raises(UserError, match=f"{VECTORS}: no such file"):
        ItemVectors.read(tmp_path)


def test_a_catalogue_takes_its_own(caplog: pytest.LogCaptureFixture) -> None:
    vectors = tiny_vectors([3, 0, 9])
    with caplog.at_level(logging.WARNING):
        mine = vectors.of(tiny_catalogue(TITLES), Path("file"))
    assert mine.item_ids == ["id0", "id3"]
    np.testing.assert_array_equal(mine.vector_IW, vectors.vector_IW[[1, 0]])
    assert [record.getMessage().split(";")[0] for record in caplog.records] == ["file: 2 of 4 items have no embedding"]
    with pytest.raises(UserError, match=r"file: has no embedding of any item .* like id8, the catalogue's like id0, "):
        tiny_vectors([8]).of(tiny_catalogue(TITLES), Path("file"))


def test_tokens_lie_behind_the_vocabulary_and_follow_the_ids() -> None:
    model = model_with_items([1, 3])
    assert model.item_embedding is not None
    assert model.item_embedding.tokens(tiny_catalogue(TITLES)).tolist() == [NO_TOKEN, V, NO_TOKEN, V + 1]
    grown = tiny_catalogue([*TITLES, (4,)])  # a new item has no embedding
    tokens = model.item_tokens(grown)
    assert tokens is not None and tokens.tolist() == [NO_TOKEN, V, NO_TOKEN, V + 1, NO_TOKEN]
    assert tiny_model().item_tokens(grown) is None


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *UNSHARED])
def test_words_are_read_as_before(architecture: str) -> None:
    model = model_with_items([0, 1], architecture)
    token_RN = torch.tensor([[0, 5, 9, 7, 20, 4]])
    with torch.no_grad():
        assert torch.equal(model.rows_hidden(token_RN), tiny_model(architecture).rows_hidden(token_RN))
    assert model_digest(model) == model_digest(tiny_model(architecture))


def test_an_item_token_is_the_projection_of_its_embedding() -> None:
    model, vectors = model_with_items([0, 1]), tiny_vectors([0, 1])
    first, _, last = weights_of(model)
    unit = np.sqrt(np.square(vectors.vector_IW).mean())
    inner = torch.nn.functional.gelu(torch.from_numpy(vectors.vector_IW / unit) @ first.weight.T + first.bias)
    expected = inner @ last.weight.T + last.bias
    word = model.base.get_input_embeddings()
    read = model.inputs(torch.tensor([[V + 1, 7, V]]))["inputs_embeds"][0]
    torch.testing.assert_close(read[[2, 0]], expected)
    assert torch.equal(read[1], word.weight[7])


def test_the_unit_of_the_embeddings_does_not_matter() -> None:
    one, thousand = tiny_model(), tiny_model()
    vectors = tiny_vectors([0, 1, 2])
    add_item_embedding(one, vectors)
    add_item_embedding(thousand, ItemVectors(vectors.item_ids, 1000 * vectors.vector_IW))
    torch.testing.assert_close(hidden(one), hidden(thousand))
    zero = tiny_model()
    add_item_embedding(zero, ItemVectors(vectors.item_ids, 0 * vectors.vector_IW))
    assert hidden(zero).isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_forest_gives_what_rows_give(architecture: str) -> None:
    model = model_with_items([0, 1, 2], architecture)
    forest = pack_forest(ARRAYS, 64)
    assert forest.tokens_out < forest.tokens_in
    with torch.no_grad():
        shared = model.forest_hidden(forest, torch.from_numpy(forest.flat_nodes(*places())))
    torch.testing.assert_close(shared, hidden(model), rtol=1e-4, atol=1e-4)
    other = model_with_items([0, 1, 2], architecture)
    with torch.no_grad():
        for weight in weights_of(other).parameters():
            weight.zero_()
    behind_item = torch.cat([torch.tensor(tokens).cummax(0).values >= V for tokens in SEQUENCES])
    changed = (hidden(other) - shared).abs().amax(dim=1) > 1e-3
    assert torch.equal(changed, behind_item), "items count where they stand, and nowhere else"
    assert hidden(other).isfinite().all()


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_what_trains(lora: Lora | None) -> None:
    model = model_with_items([0, 1, 2])
    model = model if lora is None else add_lora(model, lora, seed=0)
    token_RN = torch.tensor([SEQUENCES[0]])
    model.rows_hidden(token_RN).square().sum().backward()
    assert model.item_embedding is not None and not model.item_embedding.vector_IW.requires_grad
    for weight in weights_of(model).parameters():
        assert weight.grad is not None and weight.grad.abs().max() > 0
    word = model.base.get_input_embeddings().weight
    if lora is None:
        assert word.grad is not None
        read = set(token_RN[0].tolist())
        moved = {int(token) for token in word.grad.abs().amax(dim=1).nonzero()[:, 0]}
        assert moved == {token for token in read if token < V}
    else:
        assert word.grad is None
        trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert all(".lora_" in name or name.startswith("item_embedding.projector.") for name in trained)


def test_a_batch_without_items_leaves_the_projector_in_the_graph() -> None:
    """Distributed training waits for a gradient of every weight."""
    model = model_with_items([0])
    model.rows_hidden(torch.tensor([[5, 6]])).sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in weights_of(model).parameters())


def test_under_autocast_and_in_half_precision() -> None:
    model = model_with_items([0, 1, 2])
    token_RN = torch.tensor([SEQUENCES[0]])
    expected = model.rows_hidden(token_RN)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.rows_hidden(token_RN).float(), expected, rtol=0.2, atol=0.2)
    half = model.to(torch.bfloat16).rows_hidden(token_RN)
    assert half.dtype == torch.bfloat16 and half.isfinite().all()


def test_the_seed_alone_decides() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = tiny_model(), tiny_model(), tiny_model()
    for model, seed in ((one, 0), (same, 0), (other, 1)):
        add_item_embedding(model, tiny_vectors([0]), seed)
        torch.rand(1)
    torch.set_rng_state(state)
    add_item_embedding(same, tiny_vectors([0]), seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, weights_of(one).parameters(), weights_of(same).parameters()))
    assert not torch.equal(weights_of(one)[0].weight, weights_of(other)[0].weight)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])  # with tied embeddings and without
def test_a_run_gives_back_what_it_saved(tmp_path: Path, architecture: str, lora: Lora | None) -> None:
    save_weights(tiny_model(architecture), tmp_path / "base")
    model = load_language_model(str(tmp_path / "base"))
    add_item_embedding(model, tiny_vectors([0, 1, 2]))
    model = model if lora is None else add_lora(model, lora, seed=0)
    fresh = copy.deepcopy(model)
    shake(model)
    run = tmp_path / "run"
    save_weights(model, run)
    tiny_vectors([0, 1, 2]).save(run)
    loaded = load_trained(run, str(tmp_path / "base"))
    assert torch.equal(hidden(loaded), hidden(model)) and not torch.allclose(hidden(fresh), hidden(model), atol=1e-3)
    load_weights(fresh, run)  # as the best epoch's checkpoint is read
    assert torch.equal(hidden(fresh), hidden(model))
    names = {path.name for path in run.iterdir()}
    assert PROJECTOR in names and ("model.safetensors" in names) == (lora is None)

    for file in (PROJECTOR, VECTORS):
        content = (run / file).read_bytes()
        (run / file).unlink()
        with pytest.raises(UserError, match=file):
            load_trained(run, str(tmp_path / "base"))
        (run / file).write_bytes(content)
    (run / PROJECTOR).write_bytes(b"no")
    with pytest.raises(UserError, match=f"{PROJECTOR}: is not the projector of these item embeddings"):
        load_trained(run, str(tmp_path / "base"))


def test_a_plain_checkpoint_holds_no_projector(tmp_path: Path) -> None:
    save_weights(tiny_model(), tmp_path)
    assert not (tmp_path / PROJECTOR).exists() and load_trained(tmp_path, None).item_embedding is None


@pytest.mark.parametrize("kind", ["adapter on", "new adapter"])
def test_the_reference_has_the_projector_of_before(tmp_path: Path, kind: str) -> None:
    save_weights(tiny_model(), tmp_path / "base")
    model = load_language_model(str(tmp_path / "base"))
    add_item_embedding(model, tiny_vectors([0, 1, 2]))
    model = add_lora(model, Lora(rank=2, dropout=0), seed=0)
    if kind == "adapter on":
        shake(model)
        save_weights(model, tmp_path / "run")
        tiny_vectors([0, 1, 2]).save(tmp_path / "run")
        model = load_trained(tmp_path / "run", str(tmp_path / "base"))
        train_on(model, tmp_path / "run")
    assert model.item_embedding is not None
    model.item_embedding.keep_reference()
    before, digest = hidden(model), items_digest(model)
    shake(model)
    after = hidden(model)
    assert not torch.allclose(after, before, atol=1e-3)
    with reference_weights(model):
        assert torch.equal(hidden(model), before)
    assert torch.equal(hidden(model), after)
    assert items_digest(model) == digest, "the digest is the reference's"
    assert not any(name.startswith("item_embedding._ref") for name, w in model.named_parameters() if w.requires_grad)
    assert items_digest(tiny_model()) is None


class ReadsIds(torch.nn.Module):
    """A decoder that looks at the ids themselves."""

    def __init__(self, decoder: torch.nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: torch.Tensor | None = None, **options: object) -> tuple[torch.Tensor]:
        if input_ids is None:
            options["inputs_embeds"] = 2 * options["inputs_embeds"]  # type: ignore[operator]
        found: tuple[torch.Tensor] = self.decoder(input_ids=input_ids, **options)
        return found


def test_a_model_that_reads_ids_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    monkeypatch.setattr(model.base, "get_decoder", lambda decoder=model.decoder: ReadsIds(decoder))
    with pytest.raises(UserError, match="LlamaForCausalLM does not take vectors in place of tokens"):
        add_item_embedding(model, tiny_vectors([0]))
