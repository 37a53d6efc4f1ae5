"""The scorer: one n, one protocol, an honest NaN; and what known generators of digits score.

The bands for digits are around a measured table (8 splits, several extractors): FID 4.1 +- 0.5 for the floor,
51 for 100 memorised images, 47 for noise of 0.5, 305 for five of ten classes, 1304 for the mean image.
"""

import math

import pytest
import torch

import saddlepoint
from saddlepoint.data import Dataset, load
from saddlepoint.errors import UserError
from saddlepoint.metrics import METRICS, Scorer, catalogue
from saddlepoint.metrics.classes import accuracy
from saddlepoint.metrics.classifier import classifier
from saddlepoint.metrics.subject import Offers, Subject

NEIGHBOURS = {"precision", "recall", "density", "coverage", "one_nn"}
MIXTURE = {"modes", "high_quality", "reverse_kl", "reverse_kl_all", "std_ratio"}
SHARES = {f"class_share_{label}" for label in range(10)}


@pytest.fixture(scope="module")
def ring():
    return load("ring", train=600, heldout=400)


@pytest.fixture(scope="module")
def planted(digits):
    """Generators whose faults are known, as 898 samples each."""
    torch.manual_seed(0)
    x, labels = digits.train, digits.train_labels
    n = len(x)
    five, three = x[labels < 5], x[labels == 3]
    return {
        "noise .2": (x + 0.2 * torch.randn_like(x)).clamp(-1, 1),
        "noise .5": (x + 0.5 * torch.randn_like(x)).clamp(-1, 1),
        "memorised": x[torch.randperm(n)[:100]][torch.randint(100, (n,))],
        "five classes": five[torch.randint(len(five), (n,))],
        "one class": three[torch.randint(len(three), (n,))],
        "uniform": torch.rand_like(x) * 2 - 1,
        "mean image": x.mean(dim=0) + 0.01 * torch.randn_like(x),
    }


def refusal(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_floor_of_digits_is_about_four(scorer):
    floor = scorer.floor()
    assert set(floor) == NEIGHBOURS | SHARES | {"fid", "kid", "emd", "class_tv"}
    assert floor["fid"] == pytest.approx(4.1, abs=1.5)  # 3 sd of the split, and the extractor's own seed
    assert floor["kid"] == pytest.approx(-0.025, abs=0.012)
    assert floor["recall"] == pytest.approx(0.92, abs=0.04)
    assert floor["precision"] == pytest.approx(0.91, abs=0.04)
    assert floor["density"] == pytest.approx(0.99, abs=0.1)
    assert floor["coverage"] == pytest.approx(0.87, abs=0.04)
    assert floor["one_nn"] == pytest.approx(0.505, abs=0.04)
    assert floor["emd"] == pytest.approx(2.484, abs=0.03)
    assert floor["class_tv"] < 0.02
    assert sum(floor[name] for name in SHARES) == pytest.approx(1, abs=1e-12)


def test_known_faults_score_in_order(scorer, planted):
    fid = {name: scorer.score(Subject(samples), ["fid"])["fid"] for name, samples in planted.items()}
    assert scorer.floor(["fid"])["fid"] < fid["noise .2"] < fid["noise .5"] < fid["five classes"]
    assert fid["five classes"] < fid["uniform"] < fid["mean image"]
    assert fid["noise .5"] == pytest.approx(47, abs=20)
    assert fid["memorised"] == pytest.approx(51, abs=20)
    assert fid["five classes"] == pytest.approx(305, rel=0.25)
    assert fid["mean image"] == pytest.approx(1304, rel=0.25)


def test_each_fault_is_seen_by_the_metric_made_for_it(scorer, planted):
    memorised = scorer.score(Subject(planted["memorised"]), ["recall", "one_nn", "precision"])
    assert memorised["recall"] < 0.08
    assert memorised["one_nn"] > 0.9
    assert memorised["precision"] > 0.9  # blind to it
    mean = scorer.score(Subject(planted["mean image"]), ["precision", "coverage", "recall", "one_nn"])
    assert mean == pytest.approx({"precision": 1, "coverage": 0.006, "recall": 0, "one_nn": 1}, abs=0.02)
    five = scorer.score(Subject(planted["five classes"]), ["class_tv", "class_share", "recall"])
    assert five["class_tv"] == pytest.approx(0.5, abs=0.02)
    assert sum(five[f"class_share_{label}"] for label in range(5)) > 0.98
    assert five["recall"] < 0.5
    assert scorer.score(Subject(planted["one class"]), ["class_share"])["class_share_3"] > 0.98
    assert scorer.score(Subject(planted["uniform"]), ["precision", "emd"]) == pytest.approx(
        {"precision": 0.1, "emd": 7.33}, abs=0.1
    )


def test_points_have_their_own_metrics(ring):
    scorer = Scorer(ring)
    assert scorer.samples == 400
    floor = scorer.floor()
    assert set(floor) == NEIGHBOURS | MIXTURE | {"emd"} == set(scorer.metrics)
    assert floor["modes"] == 8
    assert floor["high_quality"] == pytest.approx(0.989, abs=0.016)
    assert floor["std_ratio"] == pytest.approx(1, abs=0.1)
    collapsed = scorer.score(Subject(ring.mixture.means[:1].expand(400, 2)))
    assert collapsed["reverse_kl"] == pytest.approx(math.log(8), abs=1e-9)
    assert collapsed["emd"] == pytest.approx(0.25 / math.tan(math.pi / 16), abs=0.1)  # mean of 2 sin(k pi / 8)


def test_one_s_own_points_have_no_modes(ring):
    own = Dataset.build("own", "points", ring.train, ring.heldout)
    assert set(Scorer(own).metrics) == NEIGHBOURS | {"emd"}
    assert refusal(Scorer(own).score, own.train[:400], ["modes"]).startswith("objective.metric: 'modes' needs")


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_samples_that_are_not_finite_are_never_hidden(scorer, digits, bad):
    samples = digits.train.clone()
    samples[17, 0, 3, 3] = bad
    scores = scorer.score(Subject(samples))
    assert set(scores) == set(scorer.floor())
    finite = {name for name, value in scores.items() if not math.isnan(value)}
    # 1e30 is finite, and so are its features: an honest, astronomical score
    assert not finite or (bad == 1e30 and scores["fid"] > 1e20)


def test_features_that_overflow_are_nan(scorer, digits):
    samples = torch.full_like(digits.train, 3e38)
    assert all(math.isnan(value) for value in scorer.score(Subject(samples), ["fid", "recall"]).values())


def test_exactly_n_samples_of_the_right_shape(scorer, digits, ring):
    assert scorer.samples == 898
    assert refusal(scorer.score, Subject(digits.train[:897])) == (
        "objective.samples: scoring needs (898, 1, 8, 8), not (897, 1, 8, 8)"
    )
    assert "not (898, 64)" in refusal(scorer.score, Subject(digits.train.flatten(1)))
    assert refusal(Scorer, ring, samples=401) == "objective.samples: 401; 'ring' allows 1 to 400"
    assert refusal(Scorer, ring, samples=0) == "objective.samples: 0; 'ring' allows 1 to 400"


def test_n_is_capped_for_large_sets():
    assert Scorer(load("ring", heldout=3000)).samples == 2500
    assert Scorer(load("ring", heldout=3000), samples=3000).samples == 3000


def test_metrics_that_do_not_apply_say_why(scorer, digits, ring):
    assert "did you mean 'fid'?" in refusal(scorer.score, Subject(digits.train), ["fdi"])
    assert refusal(scorer.floor, ["modes"]) == "objective.metric: 'modes' is for data of kind points, not image"
    assert refusal(Scorer(ring).floor, ["fid"]).endswith("is for data of kind image, not points")
    pixels = Scorer(digits, features="pixels")
    assert refusal(pixels.floor, ["class_tv"]).endswith("needs features: classifier, not pixels")


def test_too_few_samples_for_a_metric(digits):
    few = Scorer(digits, samples=64, features="pixels")
    assert refusal(few.floor, ["fid"]) == "objective.samples: 64; fid here needs at least 65"
    assert "fid" not in few.metrics
    assert "recall" in few.metrics
    assert "fid" in Scorer(digits, samples=65, features="pixels").metrics
    assert refusal(Scorer(digits, samples=3, features="pixels").floor, ["recall"]).endswith("needs at least 4")


def test_the_floor_is_computed_once(ring, monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return 1.0

    monkeypatch.setattr(catalogue, "emd", counted)
    scorer = Scorer(ring)
    assert scorer.floor(["emd"]) == scorer.floor(["emd"]) == {"emd": 1.0}
    assert set(scorer.floor()) > {"emd"}
    assert len(calls) == 1


def test_real_features_are_computed_once(ring, monkeypatch):
    scorer = Scorer(ring)
    seen = []
    extract = scorer._extract
    monkeypatch.setattr(scorer._real, "_extract", lambda samples: seen.append(len(samples)) or extract(samples))
    for _ in range(3):
        scorer.score(Subject(ring.train[:400]), ["recall"])
    assert seen == [400]


def test_scores_repeat_to_the_bit_in_another_scorer(digits, scorer, planted):
    again = Scorer(digits, features="pixels"), Scorer(digits, features="pixels")
    names = ["fid", "kid", *sorted(NEIGHBOURS)]
    samples = planted["noise .5"]
    assert again[0].score(Subject(samples), names) == again[1].score(Subject(samples), names)
    assert scorer.score(Subject(samples), names) == scorer.score(Subject(samples.clone()), names)


def test_protocol_holds_what_makes_scores_comparable(digits, scorer):
    assert scorer.protocol == {
        "features": "classifier",
        "features_hash": scorer._extract.hash,
        "samples": 898,
        "data_fingerprint": digits.fingerprint,
        "saddlepoint": saddlepoint.__version__,
    }
    assert len(str(scorer.protocol["features_hash"])) == 64


def test_the_catalogue_says_which_way_is_better():
    lower = {name for name, metric in METRICS.items() if metric.better == "lower"}
    assert lower == {
        *("fid", "kid", "one_nn", "emd", "class_tv", "reverse_kl", "reverse_kl_all", "kl_ratio", "jsd_ratio"),
        *("reconstruction", "reconstruction_pixel", "aggregate_kl", "paired_l1", "cycle_l1"),
    }
    assert {name for name, metric in METRICS.items() if metric.better == "none"} == {
        "class_share",
        "std_ratio",
        "importance_ess",
        "posterior_kl",
    }
    assert all(name == metric.name for name, metric in METRICS.items())
    assert [name for name, metric in METRICS.items() if metric.cost == "costly"] == [
        "emd",
        "log_likelihood",
        "importance_ess",
    ]


def test_class_accuracy_is_judged_by_who_has_seen_the_heldout_half_only(digits):
    """papers: such a judge names about 96 % of the real images of the other half rightly."""
    conditional = Scorer(digits, offers=Offers(labels=True))
    n = conditional.samples
    right = Subject(digits.train[:n], digits.train_labels[:n])
    assert 0.94 < conditional.score(right, ["class_accuracy"])["class_accuracy"] < 0.99
    wrong = Subject(digits.train[:n], (digits.train_labels[:n] + 1) % 10)
    assert conditional.score(wrong, ["class_accuracy"])["class_accuracy"] < 0.03
    assert conditional.floor(["class_accuracy"])["class_accuracy"] == pytest.approx(0.962, abs=0.02)
    seen = classifier(digits)  # the extractor knows both halves by heart, and would not do as a judge
    assert accuracy(seen.classify(digits.train), digits.train_labels) > 0.99


def test_what_a_game_does_not_offer_is_refused_with_the_reason(scorer, digits):
    assert "class_accuracy" not in scorer.metrics
    for name, reason in (
        ("class_accuracy", "needs a conditional game, as cgan"),
        ("elbo", "needs a game with an encoder, as avb or vae"),
        ("paired_l1", "is for a game between two domains, as cyclegan"),
    ):
        assert reason in refusal(scorer.floor, [name])
    grey = Scorer(digits, offers=Offers(latent=8), features="pixels")
    assert "needs images whose every pixel is -1 or 1" in refusal(grey.floor, ["log_likelihood"])
    assert "reconstruction" in grey.metrics
    two_toned = load("digits", binary=True)
    wide = Scorer(two_toned, offers=Offers(latent=32), features="pixels")
    assert "needs a z_dim of at most 8, not 32" in refusal(wide.floor, ["elbo"])
    assert "log_likelihood" in wide.metrics
    assert wide.floor(["log_likelihood"]) == {}  # real data have no likelihood of their own


def test_a_density_ratio_is_there_for_who_asks(ring):
    scorer = Scorer(ring)
    assert {"kl_ratio", "jsd_ratio"} == set(scorer.available) - set(scorer.metrics)
    asked = scorer.score(Subject(torch.zeros(400, 2)), ["kl_ratio", "jsd_ratio"])
    assert asked["jsd_ratio"] == pytest.approx(math.log(2), abs=0.05)  # disjoint
    assert abs(scorer.floor(["jsd_ratio"])["jsd_ratio"]) < 0.03
