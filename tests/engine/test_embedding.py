import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.engine.embedding import embed_texts
from ioa_jax.errors import InputError
from tests.tiny import tiny_model


def test_vectors_are_means_over_the_real_tokens():
    model = tiny_model()
    # Lengths of two buckets, out of order.
    texts = ["5 6 7", " ".join(str(2 + i % 90) for i in range(70)), "9", "5 6"]
    vectors = embed_texts(model, texts)
    assert vectors.shape == (4, 32)
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        tokens = jnp.asarray([[int(word) for word in text.split()]], jnp.int32)
        expected = np.asarray(model.decoder.hidden(tokens))[0].mean(axis=0)
        np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.mark.parametrize(("text", "count"), [("", 0), ("5 " * 600, 600)])
def test_texts_that_cant_be_read(text, count):
    with pytest.raises(InputError, match=f"text 1 has {count} tokens"):
        embed_texts(tiny_model(), ["5", text])
