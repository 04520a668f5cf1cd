import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.errors import InputError
from ioa_jax.organizer.zone import (
    Bounds,
    Bridge,
    Transition,
    ZoneReport,
    ZoneSettings,
    bridge_levels,
    divide_layers,
    mean_performance,
    zone_bounds,
)

DROP, ABSOLUTE, PRINTED = (ZoneSettings(0.2, name) for name in ("drop", "absolute", "printed"))


def modules_of(parts):
    return [part.modules for part in parts]


def layers_of(*performances):
    """One module a performance, named by its layer and place, and the performances by module."""
    layers, performance = [], {}
    for i, values in enumerate(performances):
        layers.append([f"{i}{j}" for j in range(len(values))])
        performance |= dict(zip(layers[-1], values, strict=True))
    return layers, performance


@pytest.mark.parametrize(
    ("before", "after", "inside"),
    [
        # With τ 0.2 a stage at 0.5 may be followed by one at 0.4 to 0.6.
        (0.5, 0.45, {"drop", "absolute", "printed"}),
        (0.5, 0.4, {"drop", "absolute", "printed"}),
        (0.5, 0.6, {"drop", "absolute", "printed"}),
        (0.5, 0.39, {"printed"}),
        (0.5, 0.61, {"drop"}),
        (0.5, 0.0, {"printed"}),
        (0.0, 0.0, {"drop", "absolute", "printed"}),
        (0.0, 0.1, {"drop"}),
        (0.9, 1.0, {"drop", "absolute", "printed"}),
    ],
)
def test_readings_of_equation_8(before, after, inside):
    for settings in (DROP, ABSOLUTE, PRINTED):
        assert zone_bounds(before, settings).contain(after) == (settings.reading in inside)


def test_a_step_of_the_bound_itself_is_inside_whatever_the_rounding():
    # 0.8 * (1 - 0.15) is 0.68, and 0.5 * 1.1 is 0.55.
    assert zone_bounds(0.8, ZoneSettings(0.15)).contain(0.68)
    assert zone_bounds(0.5, ZoneSettings(0.1, "printed")).contain(0.55)


def test_mean_performance():
    assert mean_performance(["a", "b"], {"a": 0.2, "b": 0.6, "c": 1.0}) == pytest.approx(0.4)
    with pytest.raises(InputError, match="'b'"):
        mean_performance(["a", "b"], {"a": 0.2})
    with pytest.raises(InputError, match="'a'"):
        mean_performance(["a"], {"a": 1.2})
    with pytest.raises(InputError, match="without modules"):
        mean_performance([], {})


def test_layers_inside_the_zone_stay_whole():
    layers, performance = layers_of([0.5, 0.7], [0.5])
    parts, report = divide_layers(layers, performance, DROP)
    assert modules_of(parts) == [("01", "00"), ("10",)]
    assert report == ZoneReport(
        DROP,
        (Transition(2, parts[0].performance, 0.5, zone_bounds(parts[0].performance, DROP), True),),
        (),
        (),
    )


def test_a_layer_that_is_too_hard_is_split_hardest_last():
    # After 0.6 a stage has to be at 0.48 or more: 0.55 and 0.45 are at 0.5 together, and with 0.36
    # at 0.453. 0.36 alone is under 0.8 * 0.5, so that it needs a bridge from 0.5 to it.
    layers, performance = layers_of([0.6], [0.36, 0.55, 0.45])
    parts, report = divide_layers(layers, performance, DROP)
    assert modules_of(parts) == [("00",), ("11", "12"), ("10",)]
    assert [(t.stage, t.inside) for t in report.transitions] == [(2, True), (3, False)]
    (split,) = report.splits
    assert (split.layer, split.parts) == (1, (("11", "12"), ("10",)))
    (bridge,) = report.bridges
    assert (bridge.stage, bridge.modules, bridge.direction) == (3, ("10",), "easier")
    assert (bridge.bounds.low, bridge.bounds.high) == (pytest.approx(0.4), 1.0)


def test_modules_after_a_bridge_are_judged_against_what_it_leads_to():
    # Nothing is within 0.2 of 0.9. The bridge leads to 0.3; 0.3 and 0.2 are at 0.25 together.
    layers, performance = layers_of([0.9], [0.2, 0.3, 0.05])
    parts, report = divide_layers(layers, performance, DROP)
    assert modules_of(parts) == [("00",), ("11", "10"), ("12",)]
    assert [bridge.stage for bridge in report.bridges] == [2, 3]


def test_absolute_and_printed_bound_the_rise():
    layers, performance = layers_of([0.2], [0.8, 0.7])
    for settings in (ABSOLUTE, PRINTED):
        parts, report = divide_layers(layers, performance, settings)
        assert modules_of(parts) == [("00",), ("10", "11")]
        (bridge,) = report.bridges
        assert bridge.direction == "harder"
        assert bridge.bounds.high == pytest.approx(0.24)
    assert divide_layers(layers, performance, DROP)[1].bridges == ()


def test_each_reading_is_violated_by_some_plan_and_the_report_names_it():
    falls, rises = layers_of([0.8], [0.1]), layers_of([0.1], [0.8])
    violated = {
        (name, settings.reading): not divide_layers(*plan, settings)[1].transitions[0].inside
        for name, plan in (("falls", falls), ("rises", rises))
        for settings in (DROP, ABSOLUTE, PRINTED)
    }
    assert violated == {
        ("falls", "drop"): True,
        ("falls", "absolute"): True,
        ("falls", "printed"): False,
        ("rises", "drop"): False,
        ("rises", "absolute"): True,
        ("rises", "printed"): True,
    }


def test_the_stage_taught_before_bounds_the_first():
    layers, performance = layers_of([0.3, 0.8])
    assert len(divide_layers(layers, performance, DROP)[0]) == 1
    parts, report = divide_layers(layers, performance, DROP, before=0.9, first_stage=4)
    assert modules_of(parts) == [("01",), ("00",)]
    assert [t.stage for t in report.transitions] == [4, 5]


def test_bridge_levels_are_those_inside():
    bounds = Bounds(0.4, 0.6)
    assert bridge_levels({3: 0.6, 1: 0.9, 2: 0.5, 4: 0.39}, bounds) == (2, 3)
    assert bridge_levels({1: 0.9}, bounds) == ()


def test_a_report_is_read_back_as_written():
    report = divide_layers(*layers_of([0.9], [0.2, 0.8]), DROP)[1]
    assert isinstance(report.bridges[0], Bridge)
    assert ZoneReport.from_json(report.to_json(), "zone.json") == report


def test_bad_settings_and_layers_are_refused():
    with pytest.raises(InputError, match="tau_zpd"):
        ZoneSettings(1.5)
    with pytest.raises(InputError, match="without modules"):
        divide_layers([[]], {}, DROP)


plans = st.lists(
    st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)
readings = st.builds(
    ZoneSettings, st.floats(0, 0.9), st.sampled_from(["drop", "absolute", "printed"])
)


@given(plans, readings, st.none() | st.floats(0, 1))
def test_a_plan_satisfies_the_reading_it_names(plan, settings, before):
    """Each step, recomputed from the parts by the printed inequalities, holds or has a bridge."""
    layers, performance = layers_of(*plan)
    parts, report = divide_layers(layers, performance, settings, before)
    bridged = {bridge.stage for bridge in report.bridges}
    for stage, part in enumerate(parts, start=1):
        after = math.fsum(performance[m] for m in part.modules) / len(part.modules)
        if before is not None:
            change = {
                "drop": before - after,
                "absolute": abs(after - before),
                "printed": after - before,
            }[settings.reading]
            if stage in bridged:
                assert change > settings.tau_zpd * before
            else:
                assert change <= settings.tau_zpd * before + 1e-8
        before = after


@given(plans, readings, st.none() | st.floats(0, 1))
def test_dividing_keeps_every_module_and_the_order_of_layers(plan, settings, before):
    layers, performance = layers_of(*plan)
    parts, _ = divide_layers(layers, performance, settings, before)
    by_layer = [
        [m for part in parts if part.layer == i for m in part.modules] for i in range(len(layers))
    ]
    assert [sorted(modules) for modules in by_layer] == [sorted(layer) for layer in layers]
    assert [part.layer for part in parts] == sorted(part.layer for part in parts)
    for modules in by_layer:
        values = [performance[m] for m in modules]
        assert values == sorted(values, reverse=True)


def test_a_stage_has_no_more_modules_than_it_may():
    performance = {module: 0.5 for module in "abcdefg"}
    settings = ZoneSettings(max_stage_modules=3)
    parts, report = divide_layers([tuple("abcdefg")], performance, settings)
    assert [part.modules for part in parts] == [tuple("abc"), tuple("def"), ("g",)]
    assert report.bridges == ()
    with pytest.raises(InputError, match="max_stage_modules"):
        ZoneSettings(max_stage_modules=0)
