"""Models that have no name of their own are read from the shape that a table writes in its place."""

import pytest

from planner.architecture import parameter_counts
from planner.backtest.cells import UnsupportedRunError
from planner.backtest.models import architecture_of
from planner.memory.activations import block_activations


def parameters(name, **more):
    return parameter_counts(architecture_of({"model": name, "seq_len": "2048"} | more)).total


def test_a_llama_of_a_shape_has_its_parameters():
    h, i, layers, kv, vocab = 2048, 5632, 22, 4 * 64, 32000
    block = 2 * h * h + 2 * h * kv + 3 * h * i + 2 * h
    assert (
        parameters("custom-llama-h2048-i5632-l22-a32-kv4-v32000-untied") == layers * block + 2 * vocab * h + h
    )
    assert parameters("custom-llama-h2048-i5632-l22-a32-kv4-v32000-tied") == layers * block + vocab * h + h
    assert parameters("custom-llama-h2048-i5632-l22-a32-kv4-v32000") == layers * block + 2 * vocab * h + h


def test_a_gpt_of_a_shape_has_its_parameters():
    """Biases everywhere, learned positions as long as a row, the head shared unless the name says otherwise."""
    h, vocab = 1024, 50304
    block = 12 * h * h + 13 * h
    whole = 24 * block + vocab * h + 2048 * h + 2 * h
    assert parameters("custom-gpt-h1024-l24-a16-v50304") == whole
    assert parameters("custom-gpt2-h1024-l24-a16-v50304-untied") == whole + vocab * h


def test_gpt_3s_sizes_have_their_papers_shape():
    """Brown et al. 2020, table 2.1; what a name states wins, and odd sizes are left out."""
    assert parameters("custom-gpt3-2.7b") == parameters("custom-gpt-h2560-l32-a32-v50257")
    assert parameters("custom-gpt3-6.7b-h4096-l32-a32") == parameters("custom-gpt-h4096-l32-a32-v50257")
    assert parameters("custom-gpt3-175b-v51200") == parameters("custom-gpt-h12288-l96-a96-v51200")


@pytest.mark.parametrize(
    "name",
    [
        "custom-llama-h2048-l22-a32-v32000",  # no inner width
        "custom-gpt-h1024-a16-v50304",  # no layers
        "custom-gpt-h1000-l24-a16-v50304",  # heads that do not divide it
        "custom-mamba-h1024-l24-a16-v50304",
        "custom-gpt9-2.7b",
        "custom-gpt3-13b",
        "custom-gpt-126m-h768-l12-a12",  # whose vocabulary?
    ],
)
def test_a_shape_with_a_gap_is_not_guessed(name):
    with pytest.raises(UnsupportedRunError, match="is not known"):
        parameters(name)


def test_a_shape_that_contradicts_the_stated_size_is_none():
    name = "custom-gpt-h1024-l24-a16-v50304"
    assert parameters(name, params_b="0.355") > 3.5e8
    with pytest.raises(UnsupportedRunError):
        parameters(name, params_b="1.3")


def test_blocks_of_ones_own_write_no_gelu_out():
    """GPT-2 of transformers keeps three more inputs of its activation's steps; Megatron drops out by default."""
    named = {"model": "gpt2"}, {"model": "custom-gpt-h768-l12-a12-v50257"}
    theirs, own = (architecture_of(row) for row in named)
    kept = [block_activations(arch, None, 2.0, 2.0, False, False).mlp for arch in (theirs, own)]
    assert kept[0] - kept[1] == 3 * 2.0 * 3072
    megatron = architecture_of(named[1] | {"framework": "Megatron-LM"})
    assert (theirs.dropout, own.dropout, megatron.dropout) == (0.1, 0.0, 0.1)


def test_megatrons_bert_has_the_shape_of_the_large_one():
    found = architecture_of({"model": "nvidia/megatron-bert-cased-345m"})
    assert (found.id, found.hidden, found.layers) == ("bert-large-cased", 1024, 24)
