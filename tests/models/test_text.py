"""Prompt and completion pairs, and chat templates."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ioa_jax.errors import InputError
from ioa_jax.models.text import encode_prompt_completion, render_chat

MERGES = ["a b", "Ġ a", "Ġ c", "b c", "Ġ Ġ", "Ċ Ċ", "ab c", "Ġ ab"]
VOCAB = [
    "<s>",
    "</s>",
    *sorted(pre_tokenizers.ByteLevel.alphabet()),
    *(merge.replace(" ", "") for merge in MERGES),
]


def make_tokenizer(**special):
    pairs = [(left, right) for left, right in map(str.split, MERGES)]
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(VOCAB)}, pairs))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


@pytest.fixture
def tokenizer():
    return make_tokenizer(bos_token="<s>", eos_token="</s>", add_bos_token=True)


def harness_encode_pair(tokenizer, context, continuation):
    """lm-evaluation-harness 0.4: TemplateLM._encode_pair, for decoder-only models."""
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces > 0:
        continuation = context[-n_spaces:] + continuation
        context = context[:-n_spaces]
    whole_enc = tokenizer.encode(context + continuation, add_special_tokens=False)
    context_enc = tokenizer.encode(context, add_special_tokens=False)
    return context_enc, whole_enc[len(context_enc) :]


@pytest.mark.parametrize(
    ("prompt", "completion", "pieces"),
    [
        ("x", " ab", (["x"], ["Ġab"])),
        ("x ", "ab", (["x"], ["Ġab"])),  # the space moves and merges
        ("x  ", "ab", (["x"], ["Ġ", "Ġab"])),
        ("x\n\n", "ab", (["x"], ["Ċ", "Ċ", "ab"])),
        ("x \t\n", " c", (["x"], ["Ġ", "ĉ", "Ċ", "Ġc"])),
        ("x", "ab ", (["x"], ["ab", "Ġ"])),  # the completion's own end stays
        # A merge across the boundary: the whole text is "ab" + "c" + "x", of which the prompt's
        # number of tokens (one, "a") is taken off the front.
        ("a", "bcx", (["a"], ["x"])),
        ("xa", "bx", (["x", "a"], ["x"])),
        (" a", "bx", (["Ġa"], ["x"])),
    ],
)
def test_pairs_are_cut_as_by_lm_evaluation_harness(prompt, completion, pieces, tokenizer):
    pair = encode_prompt_completion(tokenizer, prompt, completion)
    assert pair == harness_encode_pair(tokenizer, prompt, completion)
    assert tuple(tokenizer.convert_ids_to_tokens(ids) for ids in pair) == pieces


def test_an_empty_prompt_starts_from_a_special_token(tokenizer):
    ids = tokenizer.encode("ab", add_special_tokens=False)
    assert encode_prompt_completion(tokenizer, "", "ab") == ([0], ids)
    assert encode_prompt_completion(tokenizer, "", "<s>ab") == ([0], ids)
    spaced = tokenizer.encode(" \nab", add_special_tokens=False)
    assert encode_prompt_completion(tokenizer, " \n", "ab") == ([0], spaced)
    without_bos = make_tokenizer(eos_token="</s>")
    assert encode_prompt_completion(without_bos, "", "ab") == ([1], ids)
    with pytest.raises(InputError, match="no bos or eos"):
        encode_prompt_completion(make_tokenizer(), "", "ab")


def test_completions_without_tokens_of_their_own(tokenizer):
    with pytest.raises(InputError, match="completion is empty"):
        encode_prompt_completion(tokenizer, "ab ", "")
    # "a" + "b" is one token.
    with pytest.raises(InputError, match="'b' has no token of its own"):
        encode_prompt_completion(tokenizer, "a", "b")


TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' and not loop.first %}{{ raise_exception('system comes first') }}"
    "{% endif %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
USER = {"role": "user", "content": "hi"}


def test_chat_template(tokenizer):
    tokenizer.chat_template = TEMPLATE
    assert render_chat(tokenizer, [USER]) == "[user]hi\n[assistant]"
    messages = [{"role": "system", "content": "be brief"}, USER]
    text = render_chat(tokenizer, messages, add_generation_prompt=False)
    assert text == "[system]be brief\n[user]hi\n"


def test_conversations_that_cannot_be_rendered(tokenizer):
    with pytest.raises(InputError, match="no chat template"):
        render_chat(tokenizer, [USER])
    tokenizer.chat_template = TEMPLATE
    with pytest.raises(InputError, match="messages is empty"):
        render_chat(tokenizer, [])
    with pytest.raises(InputError, match="message 2: role 'teacher'"):
        render_chat(tokenizer, [USER, {"role": "teacher", "content": "no"}])
    with pytest.raises(InputError, match="message 1: field 'content'"):
        render_chat(tokenizer, [{"role": "user"}])
    with pytest.raises(InputError, match="system comes first"):
        render_chat(tokenizer, [USER, {"role": "system", "content": "late"}])
