"""Our model of lm-evaluation-harness against its `hf` model, request by request, in float32."""

import pytest

pytest.importorskip("lm_eval")
pytest.importorskip("torch")

from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

from ioa_jax.errors import InputError
from ioa_jax.models.huggingface import write_decoder
from ioa_jax.models.load import load_model
from suite.lm_eval_backend import IoaLM
from suite.tasks.seeds import load_seed_tasks

pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    pytest.mark.smollm2,
    pytest.mark.filterwarnings("ignore"),
]

TASKS = [task for task in load_seed_tasks() if task.domain == "math"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm-eval") / "smollm2"
    model = load_model("smollm2", "float32")
    write_decoder(model.decoder, model.tokenizer, folder)
    theirs = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=8)
    return IoaLM(str(folder), precision="float32", batch_size=16), theirs


def requests(kind, arguments):
    return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]


def test_choices(models):
    """As arc_easy asks: four answers to each question, one of them its own."""
    asked = []
    for i, task in enumerate(TASKS[:40]):
        choices = [TASKS[(i + 7 * k) % len(TASKS)].reference for k in range(4)]
        asked += [(f"Question: {task.prompt}\nAnswer:", f" {choice}") for choice in choices]
    asked.append(("", "Whole text without a context."))
    ours, theirs = (model.loglikelihood(requests("loglikelihood", asked)) for model in models)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert [x for x, _ in ours] == pytest.approx([x for x, _ in theirs], abs=2e-3, rel=1e-5)


def test_documents(models):
    texts = [(" ".join(task.reference for task in TASKS[i : i + 4]),) for i in range(0, 20, 4)]
    ours, theirs = (
        model.loglikelihood_rolling(requests("loglikelihood_rolling", texts)) for model in models
    )
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_generations(models):
    """As gsm8k asks, in a chat and without."""
    settings = {"until": ["Question:", "</s>"], "do_sample": False, "max_gen_toks": 48}
    asked = []
    for task in TASKS[:10]:
        question = f"Question: {task.prompt}\nAnswer:"
        chat = models[0].apply_chat_template([{"role": "user", "content": question}])
        assert chat == models[1].apply_chat_template([{"role": "user", "content": question}])
        asked += [(question, settings), (chat, settings)]
    ours, theirs = (model.generate_until(requests("generate_until", asked)) for model in models)
    assert [i for i, pair in enumerate(zip(ours, theirs, strict=True)) if len(set(pair)) > 1] == []


def test_an_unknown_setting_is_named(models):
    asked = requests("generate_until", [("a", {"until": [], "num_beams": 4})])
    with pytest.raises(InputError, match="'num_beams' is unknown"):
        models[0].generate_until(asked)
