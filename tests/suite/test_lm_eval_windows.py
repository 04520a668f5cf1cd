"""Texts shorter than the context, as long, and longer: our model of lm-eval against its `hf`."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

pytest.importorskip("lm_eval")
pytest.importorskip("torch")

from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

from ioa_jax.errors import InputError
from ioa_jax.models.decoder import init_decoder
from ioa_jax.models.huggingface import write_decoder
from ioa_jax.models.precision import Precision
from suite.lm_eval_backend import IoaLM
from tests.tiny import CONFIGS

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

CONTEXT = 32


def byte_tokenizer():
    """A token a byte; texts begin with <s>, as Llama's."""
    vocab = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(vocab)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows") / "model"
    tokenizer = byte_tokenizer()
    config = dataclasses.replace(
        CONFIGS["llama"],
        vocab_size=len(tokenizer),
        max_position=CONTEXT,
        rope_scaling=None,
        bos_token_id=0,
    )
    decoder = init_decoder(config, jax.random.key(0), Precision.named("float32"), jnp.float32)
    write_decoder(jax.tree.map(lambda x: x * 5 if x.ndim > 2 else x, decoder), tokenizer, folder)
    theirs = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1)
    return IoaLM(str(folder), precision="float32", batch_size=4), theirs


def of(models, kind, *arguments):
    found = [getattr(model, kind)([Instance(kind, {}, arguments, 0)])[0] for model in models]
    return [one if isinstance(one, float) else one[0] for one in found]


@pytest.mark.parametrize(
    "length", [1, CONTEXT - 2, CONTEXT - 1, CONTEXT, CONTEXT + 1, 2 * CONTEXT, 99]
)
def test_documents(both, length):
    text = ("ab cd ef gh " * 9)[:length]
    ours, theirs = of(both, "loglikelihood_rolling", text)
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize(
    ("context", "continuation"),
    [(3, 4), (27, 4), (28, 4), (29, 4), (60, 4), (3, 31), (1, CONTEXT)],
)
def test_contexts_that_are_cut(both, context, continuation):
    text = "abc defg " * 9
    ours, theirs = of(both, "loglikelihood", text[:context], text[context : context + continuation])
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_continuation_that_is_longer_than_the_context(both):
    with pytest.raises(InputError, match="33 tokens doesn't fit"):
        of(both[:1], "loglikelihood", "a", "b" * (CONTEXT + 1))
