"""Prompt and completion pairs, and chat templates."""

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ioa_jax.errors import InputError
from ioa_jax.models.text import (
    cut_at_stop,
    encode_prompt,
    encode_prompt_completion,
    end_of_turn,
    ending_tokens,
    render_chat,
)

MERGES = ["a b", "Ġ a", "Ġ c", "b c", "Ġ Ġ", "Ċ Ċ", "ab c", "Ġ ab", "! Ċ"]
VOCAB = [
    "<s>",
    "</s>",
    *sorted(pre_tokenizers.ByteLevel.alphabet()),
    *(merge.replace(" ", "") for merge in MERGES),
]


# Qwen's, of which signs and the line ends behind them are one piece.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s"


def make_tokenizer(**special):
    pairs = [(left, right) for left, right in map(str.split, MERGES)]
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(VOCAB)}, pairs))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


@pytest.fixture
def tokenizer():
    return make_tokenizer(bos_token="<s>", eos_token="</s>")


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
    ],
)
def test_pairs_are_cut_where_the_prompt_ends(prompt, completion, pieces, tokenizer):
    pair = encode_prompt_completion(tokenizer, prompt, completion)
    assert tuple(tokenizer.convert_ids_to_tokens(ids) for ids in pair) == pieces
    # Where no token covers both, as lm-evaluation-harness.
    assert pair == harness_encode_pair(tokenizer, prompt, completion)


@pytest.mark.parametrize("trims", [False, True])
@pytest.mark.parametrize(
    ("prompt", "completion", "pieces"),
    [
        # The whole text is "x" + "ab" + "x", where the prompt alone is "x" + "a".
        ("xa", "bx", (["x"], ["ab", "x"])),
        ("xxa", "bcx", (["x", "x"], ["abc", "x"])),
        # The prompt's own tokens are "x" + "ab"; with a "c" they are others.
        ("xab", "c", (["x"], ["abc"])),
        # A prompt that is nothing but the beginning of a token: one stands in for it.
        (" a", "bx", (["<s>"], ["Ġab", "x"])),
        # As Qwen joins closing quotes and a line end, which is moved to the completion.
        ("x!\n", " ab", (["x"], ["!Ċ", "Ġab"])),
        ("x!", "\n", (["x"], ["!Ċ"])),
        ("é!", "\né", (["Ã", "©"], ["!Ċ", "Ã", "©"])),
    ],
)
def test_a_token_that_covers_both_counts_with_the_completion(prompt, completion, pieces, trims):
    tokenizer = make_tokenizer(bos_token="<s>")
    if trims:  # as Llama 3's, whose tokens don't span the white space at their ends
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    before, after = encode_prompt_completion(tokenizer, prompt, completion)
    found = tokenizer.convert_ids_to_tokens(before), tokenizer.convert_ids_to_tokens(after)
    assert found == pieces
    # Nothing of the text is lost, as it is by lm-evaluation-harness's rule.
    text = tokenizer.decode(before + after, skip_special_tokens=True)
    assert text == prompt + completion
    own, rest = harness_encode_pair(tokenizer, prompt, completion)
    assert tokenizer.decode(own + rest) != prompt + completion


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


def test_completions_without_tokens(tokenizer):
    with pytest.raises(InputError, match="completion is empty"):
        encode_prompt_completion(tokenizer, "ab ", "")
    with pytest.raises(InputError, match="'<s>' has no token of its own"):
        encode_prompt_completion(tokenizer, "", "<s>")


@pytest.mark.parametrize("ends", [False, True])
def test_texts_begin_as_the_tokenizer_begins_them(ends):
    """Llama's begin with a token; what a tokenizer may put behind a text isn't wanted."""
    tokenizer = make_tokenizer(bos_token="<s>", eos_token="</s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if ends else "<s> $A", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    ids = tokenizer.encode("ab", add_special_tokens=False)
    assert encode_prompt(tokenizer, "ab") == [0, *ids]
    assert encode_prompt(tokenizer, "<s>ab") == [0, *ids]
    assert encode_prompt(tokenizer, "ab", rendered=True) == ids
    assert encode_prompt_completion(tokenizer, "ab", "ab") == ([0, *ids], ids)
    assert encode_prompt_completion(tokenizer, "<s>ab", "ab") == ([0, *ids], ids)
    assert encode_prompt_completion(tokenizer, "ab", "ab", rendered=True) == (ids, ids)
    for rendered in (False, True):
        assert encode_prompt_completion(tokenizer, "", "ab", rendered=rendered) == ([0], ids)


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


@pytest.mark.parametrize(
    ("template", "message"),
    [
        # The system's message is left out, or only the first turn is shown.
        ("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", "message 1"),
        ("{{ messages[0].content }}", "message 2.*the user says .'hi'"),
        ("{{ messages[1].content | upper }}{{ messages[0].content }}", "message 2"),
        ("{{ messages[1].content + 1 }}", "refuses these messages"),
        ("{{ messages[7].content.strip() }}", "refuses these messages"),
        ("{{ 1 // 0 }}", "refuses these messages"),
        ("{{ messages[0].content | nothing }}", "refuses these messages"),
    ],
)
def test_templates_that_show_not_all_or_break(template, message, tokenizer):
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=message):
        render_chat(tokenizer, [{"role": "system", "content": "be brief"}, USER])


def test_what_templates_may_change(tokenizer):
    """White space around a turn, their order, and the thoughts of earlier turns."""
    tokenizer.chat_template = (
        "{% for m in messages | reverse %}[{{ m.content.split('</think>')[-1].strip() }}]"
        "{% endfor %}"
    )
    answer = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nso"}
    chat = [{"role": "user", "content": " hi\n"}, answer, USER]
    assert render_chat(tokenizer, chat) == "[hi][so][hi]"
    tokenizer.chat_template = "{{ messages[0].content }}"
    with pytest.raises(InputError, match="message 1"):
        render_chat(tokenizer, [USER, {"role": "assistant", "content": "x"}, USER])


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}", "26 Jul 2024 hi"),
        # As Llama 3.2's, in a macro of the template's own, and the other codes.
        (
            "\n{% if strftime_now is defined %}{% set day = strftime_now('%d %B') %}{% endif %}"
            "{% macro header() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}"
            "{{ header() }} {{ day }} {{ messages[0].content }}{{ strftime_now(' %A %-m %H:%M') }}",
            "\n2024-07-26 26 July hi Friday 7 00:00",
        ),
    ],
)
def test_a_template_that_writes_the_date_writes_the_same_every_day(template, text, tokenizer):
    tokenizer.chat_template = template
    assert render_chat(tokenizer, [USER]) == text


def test_a_template_without_a_turn_of_the_assistant(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}</s>{% endfor %}"
    )
    with pytest.raises(InputError, match="no telling how the model ends an answer: message 2"):
        end_of_turn(tokenizer, (1,))


def test_ending_tokens(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|endoftext|>"]})
    turn, text = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert ending_tokens(tokenizer, (7, 1), "llama") == (7, 1)
    assert ending_tokens(tokenizer, (7,), "qwen2") == (7, 1, text)
    tokenizer.chat_template = "{{ messages[0].content }}<|im_end|>"
    assert ending_tokens(tokenizer, (), "llama") == (1, turn)
    assert ending_tokens(tokenizer, (), "qwen3_moe") == (1, turn, text)


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (("c",), ("xab", 4)),  # "abc" is two tokens here
        (("xab",), ("", 3)),
        # Of those that one token completes, the one that begins first.
        (("bc", "abc"), ("x", 4)),
        (("abc", "bc"), ("x", 4)),
        (("b</s>", " ab</s>"), ("xabc", 6)),
        (("</s>",), ("xabc ab", 6)),
        (("ab</s>x",), ("xabc ", 7)),
        (("b</s>", "q"), ("xabc a", 6)),  # it begins within the token " ab"
        (("</s>x", "x</s>"), ("xabc ab", 7)),
        (("q",), None),
        (("abx",), ("xabc ", 7)),  # the text that is given back has no special token
    ],
)
def test_cutting_at_stop_strings(stops, expected, tokenizer):
    tokens = tokenizer.convert_tokens_to_ids(["x", "a", "b", "c", "Ġab", "</s>", "x", "x"])
    assert cut_at_stop(tokenizer, tokens, stops) == expected
