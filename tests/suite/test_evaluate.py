from ioa_jax.seeds import SeedItem
from suite.evaluate import Evaluation
from suite.profile_files import load_profile


def probe(number):
    prompt = (
        "On the market square of the old town Ann has a stall and sells "
        f"{number} apples. She gives away {number + 1}. How many has she sold or given in the end?"
    )
    return SeedItem(
        id=f"probe-{number}",
        prompt=prompt,
        reference=str(number),
        domain="math",
        check={"kind": "math", "answer": str(number)},
    )


def test_what_counts_as_an_overlap_is_the_profiles():
    probes = [probe(3), probe(40)]
    other = "On the market square of the old town Ann has a stall and sells nothing at all today."

    def overlaps(*settings):
        profile = load_profile("smollm2-short", settings)[1]
        return Evaluation(profile, probes, (), {}).index().find(other)

    assert {one.item for one in overlaps()} == {"probe-3", "probe-40"}
    assert not overlaps("overlap.common=1")
