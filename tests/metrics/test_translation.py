"""The translation scorer: each direction against its own domain, and translators whose faults are known."""

import math
from dataclasses import replace

import pytest
import torch

from saddlepoint.data import load
from saddlepoint.data.dataset import Dataset, join
from saddlepoint.metrics import METRICS, Scorer, Subject
from saddlepoint.metrics.translation import TranslationScorer, baselines

OF_SAMPLES = {"fid", "kid", "precision", "recall", "density", "coverage", "one_nn", "emd"}


@pytest.fixture(scope="module")
def pairs():
    return load("digits_pairs", task="invert")


@pytest.fixture(scope="module")
def scorer(pairs, tmp_path_factory):
    """On pixels; only the judges of the classes are trained, once: some three seconds."""
    return TranslationScorer(pairs, features="pixels", cache=tmp_path_factory.mktemp("judges"))


@pytest.fixture(scope="module")
def floor(scorer):
    return scorer.floor()


def translator(x_to_y, y_to_x):
    return Subject(translate={"x_to_y": x_to_y, "y_to_x": y_to_x})


PERFECT = translator(torch.neg, torch.neg)


def same(images):
    return images


def domains(a, b, heldout, shape=(1, 4, 4)):
    """Two unlabelled domains of a and b training images, and of as many held-out ones as said."""
    rng = torch.Generator().manual_seed(0)

    def one(name, train, held, shift):
        images = torch.rand(train + held, *shape, generator=rng) * 0.5 + shift
        return Dataset.build(name, "image", images[:train], images[train:])

    return join("unpaired", one("A", a, heldout[0], -0.9), one("B", b, heldout[1], 0.2))


def test_every_metric_is_there_for_both_directions_and_as_their_mean(scorer, floor):
    assert set(scorer.metrics) == OF_SAMPLES | {"paired_l1", "cycle_l1", "class_accuracy"}
    scores = scorer.score(translator(torch.neg, lambda y: 0.9 * -y))
    expected = {f"{name}{way}" for name in scorer.metrics for way in ("", "_x_to_y", "_y_to_x")}
    assert set(scores) == set(floor) == expected
    for table in (scores, floor):
        for name in scorer.metrics:
            assert table[name] == pytest.approx((table[f"{name}_x_to_y"] + table[f"{name}_y_to_x"]) / 2, rel=1e-12)


def test_a_perfect_translator_scores_the_floor(scorer, floor):
    scores = scorer.score(PERFECT)
    assert scores == pytest.approx(floor, rel=1e-9, abs=1e-12)
    assert [scores[name] for name in ("paired_l1", "cycle_l1")] == [0, 0]
    assert scores["class_accuracy"] == pytest.approx(0.944, abs=0.02)  # judges of 449 images
    # their own counterparts are not among those that they are compared with: a nearest one would always be it
    assert scores["one_nn"] == pytest.approx(0.5, abs=0.05)


def test_the_baselines_are_those_of_the_table(pairs, scorer):
    """1.581 and .387 by an independent measurement on all 899 pairs; untranslated images keep no class."""
    scores = {name: scorer.score(subject) for name, subject in baselines(pairs).items()}
    assert scores["identity"]["paired_l1"] == pytest.approx(1.581, abs=0.005)
    assert scores["identity"]["cycle_l1"] == 0
    assert scores["identity"]["class_accuracy"] < 0.02
    assert scores["mean image"]["paired_l1"] == pytest.approx(0.387, abs=0.004)
    assert scores["mean image"]["class_accuracy"] == pytest.approx(0.1, abs=0.05)
    assert scores["mean image"]["recall"] == 0


def test_each_direction_is_scored_by_itself_against_the_domain_it_leads_to(pairs, scorer, floor):
    scores = scorer.score(translator(torch.neg, same))
    for name in scorer.metrics:
        if name != "cycle_l1":
            assert scores[f"{name}_x_to_y"] == pytest.approx(floor[f"{name}_x_to_y"], rel=1e-9, abs=1e-12)
    inverted = scorer.score(baselines(pairs)["identity"])
    for name in ("paired_l1", "fid", "class_accuracy", "recall"):
        assert scores[f"{name}_y_to_x"] == inverted[f"{name}_y_to_x"]
    assert scores["fid_y_to_x"] > 20 * floor["fid_y_to_x"]
    assert scores["cycle_l1"] == pytest.approx(1.58, abs=0.01)  # there and not back


def test_distances_by_hand(scorer):
    scores = scorer.score(translator(lambda x: -x + 0.25, lambda y: -y - 0.5), ["paired_l1", "cycle_l1"])
    assert scores == pytest.approx(
        {
            "paired_l1": 0.375,
            "paired_l1_x_to_y": 0.25,
            "paired_l1_y_to_x": 0.5,
            "cycle_l1": 0.75,  # -(-x + .25) - .5 = x - .75, and -(-y - .5) + .25 = y + .75
            "cycle_l1_x_to_y": 0.75,
            "cycle_l1_y_to_x": 0.75,
        },
        abs=1e-6,
    )


def test_a_cycle_that_closes_over_wrong_counterparts_shows_nothing(scorer):
    """Digits sent to other digits and back: the cycle is perfect, the classes and the pairs are not."""
    wrong = scorer.score(translator(lambda x: -x.rot90(1, (2, 3)), lambda y: -y.rot90(-1, (2, 3))))
    assert wrong["cycle_l1"] == 0
    assert wrong["paired_l1"] > 0.5
    assert wrong["class_accuracy"] < 0.3


def test_the_judge_has_not_seen_the_held_out_half(pairs, tmp_path):
    """Held-out labels that are all wrong: who had learned them would find them right."""

    def mislabelled(domain):
        wrong = (domain.heldout_labels + 1) % 10
        return Dataset.build(
            domain.name,
            "image",
            domain.train,
            domain.heldout,
            train_labels=domain.train_labels,
            heldout_labels=wrong,
            classes=10,
        )

    lying = join("lying", mislabelled(pairs), mislabelled(pairs.target), paired=True)
    scorer = TranslationScorer(lying, features="pixels", samples=300, cache=tmp_path)
    assert scorer.floor(["class_accuracy"])["class_accuracy"] < 0.05


def test_domains_of_different_length_without_pairs_or_labels():
    data = domains(60, 90, heldout=(20, 35))
    scorer = TranslationScorer(data, features="pixels")
    assert scorer.samples == 20
    assert set(scorer.metrics) == (OF_SAMPLES | {"cycle_l1"})
    there, back = (lambda images: images + 1.1), (lambda images: images - 1.1)
    scores = scorer.score(translator(there, back))
    assert scores["cycle_l1"] == pytest.approx(0, abs=1e-6)
    floor = scorer.floor()
    assert floor["cycle_l1"] == 0
    for way, domain in (("x_to_y", data.target), ("y_to_x", data)):
        real = Scorer(domain, samples=20, features="pixels").floor(["emd", "recall"])
        assert {name: floor[f"{name}_{way}"] for name in real} == real
        assert scores[f"emd_{way}"] == pytest.approx(real["emd"], rel=0.1)
    assert scorer.score(translator(same, same))["emd"] > 4 * floor["emd"]


def test_what_is_translated_are_n_held_out_images_in_batches(pairs):
    seen = []

    def note(images):
        seen.append(images)
        return -images

    TranslationScorer(pairs, features="pixels", samples=449).score(translator(note, torch.neg), ["paired_l1"])
    images = torch.cat(seen)
    assert images.shape == (449, 1, 8, 8)
    assert len(images.flatten(1).unique(dim=0)) == len(images)
    assert max(len(part) for part in seen) <= 64
    rows = {tuple(row) for row in pairs.heldout.flatten(1).tolist()}
    assert all(tuple(row) in rows for row in images.flatten(1).tolist())


def test_large_images_go_in_small_parts_and_no_graph_is_kept():
    weight = torch.ones(1, requires_grad=True)
    sizes = []

    def scaled(images):
        sizes.append(len(images))
        return images * weight

    data = domains(12, 12, heldout=(12, 12), shape=(3, 256, 256))
    scores = TranslationScorer(data, features="pixels").score(translator(scaled, scaled), ["cycle_l1"])
    assert scores["cycle_l1"] == 0
    assert max(sizes) == 5  # 2^20 numbers
    assert not torch.is_tensor(scores["cycle_l1"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_translations_that_are_not_finite_are_never_hidden(scorer, bad):
    def broken(images):
        images = -images
        images[-1, 0, 3, 3] = bad
        return images

    scores = scorer.score(translator(broken, torch.neg))
    nan = {name for name, value in scores.items() if math.isnan(value)}
    assert nan >= {name for name in scores if not name.endswith("_y_to_x")}
    assert scores["paired_l1_y_to_x"] == 0
    assert not math.isfinite(scores["cycle_l1_y_to_x"])


def test_scores_repeat_to_the_bit_and_the_floor_is_kept(pairs, scorer, floor):
    again = TranslationScorer(pairs, features="pixels")
    subject, names = translator(lambda x: -0.9 * x, lambda y: -0.8 * y), ["fid", "paired_l1", "recall"]
    assert scorer.score(subject, names) == again.score(subject, names)
    kept = scorer.floor(["fid", "cycle_l1"])
    assert kept == {key: floor[key] for key in kept}


def test_the_protocol_is_of_both_domains(pairs, scorer):
    assert scorer.protocol == Scorer(pairs, samples=449, features="pixels").protocol | {
        "features_hash": scorer.protocol["features_hash"]
    }
    other = TranslationScorer(load("digits_pairs", task="rotate"), features="pixels").protocol
    assert other["data_fingerprint"] != scorer.protocol["data_fingerprint"]
    assert len(scorer.protocol["features_hash"]) == 64


def test_what_cannot_be_had_is_said_in_one_line(pairs, scorer, refusal):
    unpaired = TranslationScorer(domains(70, 70, heldout=(70, 70)), features="pixels")
    shifted = TranslationScorer(
        replace(pairs, paired=False, target=domains(9, 9, (9, 9), (1, 8, 8))), features="pixels"
    )
    assert refusal(lambda: TranslationScorer(pairs.target)) == (
        "data.name: 'invert' is one domain; a translator needs two"
    )
    for scorer_, metric, message in (
        (unpaired, "paired_l1", "'paired_l1' needs held-out images in true pairs, and 'unpaired' has none"),
        (
            unpaired,
            "class_accuracy",
            "'class_accuracy' needs two domains of images with the same labels, not 'unpaired'",
        ),
        (
            shifted,
            "class_accuracy",
            "'class_accuracy' needs two domains of images with the same labels, not 'digits_pairs'",
        ),
        (unpaired, "class_tv", "'class_tv' needs features: classifier, not pixels"),
        (unpaired, "modes", "'modes' is for data of kind points, not image"),
        (scorer, "paired_l2", "'paired_l2' is not known; did you mean 'paired_l1'?"),
    ):
        assert refusal(lambda: scorer_.score(PERFECT, [metric])) == f"objective.metric: {message}"  # noqa: B023
        assert refusal(lambda: scorer_.floor([metric])) == f"objective.metric: {message}"  # noqa: B023
    assert refusal(lambda: shifted.floor(["fid"])) == "objective.samples: 9; fid here needs at least 65"
    assert refusal(lambda: TranslationScorer(pairs, samples=450, features="pixels")) == (
        "objective.samples: 450; 'digits_pairs' allows 1 to 449"
    )
    only = Subject(translate={"x_to_y": torch.neg})
    assert refusal(lambda: scorer.score(only)) == "model: does not translate y_to_x; scoring needs x_to_y and y_to_x"
    wide = translator(lambda x: x.expand(-1, 3, -1, -1), torch.neg)
    assert refusal(lambda: scorer.score(wide, ["paired_l1"])) == (
        "model: gives translations of shape (449, 3, 8, 8); the data asks for (449, 1, 8, 8)"
    )


def test_the_catalogue_knows_which_way_is_better():
    better = {name: METRICS[name].better for name in ("paired_l1", "cycle_l1", "class_accuracy")}
    assert better == {"paired_l1": "lower", "cycle_l1": "lower", "class_accuracy": "higher"}
