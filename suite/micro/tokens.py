"""The world's tokenizer: byte-level BPE on its own text, single digits, a chat template."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 1280

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"

# The frame of the JSON that the teacher writes is a token a piece: without this, a model of a few
# million parameters would spend most of what it writes on quotes and keys.
JSON_PIECES = (
    '[{"module":"',
    '","prereq":[',
    '],"difficulty_tag":"',
    '","problem":"',
    '","solution":{"steps":["',
    '"],"final_answer":"',
    '","verification":"',
    '"},"adapter_flags":{"concretization":',
    ',"decomposition":',
    ',"cognitive_load":{"scale":"',
    '","notes":""},"format_template":"',
    '","simplified_language":',
    '},"metadata":{"stage_id":"',
    '","seed_style_ref":"',
    '"}}]',
    '"}},{"module":"',
    '","',
    '{"modules":[{"category":"',
    '","module":"',
    '","difficulty":',
    ',"prerequisites":[]},{"category":"',
    ',"prerequisites":[]}]}',
)

# A digit each; line ends with their indentation, also as JSON writes them; words and runs of signs
# with the space before, and with the one after where a number follows, so that numbers look the
# same wherever they stand.
_SPLIT = r"\d|(?:\n|\\n)+ *| ?[A-Za-z_]+(?: (?=\d))?| ?(?:(?!\\n)[^\sA-Za-z_\d])+(?: (?=\d))?|\s"

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|user|>"
    "{% elif message.role == 'assistant' %}<|assistant|>"
    "{% else %}{{ raise_exception('only turns of user and assistant are known') }}{% endif %}"
    "{{ message.content }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """The tokenizer of a world with these texts; the same for the same texts."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(JSON_PIECES),
        special_tokens=[PAD, USER, ASSISTANT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator((_without_frame(text) for text in texts), trainer)
    core.add_tokens([AddedToken(piece, normalized=False) for piece in JSON_PIECES])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _without_frame(text: str) -> str:
    """The text with line ends where it has pieces of the frame, which aren't to be merged."""
    for piece in sorted(JSON_PIECES, key=len, reverse=True):
        text = text.replace(piece, "\n")
    return text
