"""Eight modes on a ring: are all of them found, and are they sharp?"""

from report import Column, Table, at_least
from trainings import Recipe, Workers

COLUMNS = (
    Column("modes of 8", "modes", ".1f"),
    Column("high quality, %", "high_quality", ".1f", 100),
    Column("reverse KL", "reverse_kl", ".3f"),
    Column("reverse KL, all samples", "reverse_kl_all", ".3f"),
    Column("std ratio", "std_ratio"),
)
ABOUT = """PacGAN's data and metric (8 modes of std 0.01 on the unit circle; 2500 samples, of high quality within 3
std of a mode; reverse KL in nats, of the samples of high quality). A perfect sampler has 98.9 % of high
quality, and more means modes that have shrunk: the std ratio is then below 1. PacGAN's GAN trains for 400
000 rounds, VEEGAN's and GDPP's for 25 000 or more on data whose std they do not give: the same metric at
other budgets, no race. No paper that was found reports a WGAN with clipping on the ring. Swept: the values that
the sweep of the pipeline found; for the GAN it found nothing better than DCGAN's. WGAN's defaults make 5
critic steps a round, so they are there twice, for as many moves (of critic and generator together) and for
as many rounds. A plain loop: PyTorch only, one or two seeds."""


GAN = "GAN, swept: DCGAN's defaults"
WGAN = {"swept": "WGAN, swept", "moves": "WGAN, defaults, as many moves", "rounds": "WGAN, defaults, as many rounds"}


def table(workers: Workers) -> Table:
    made = Table("GAN and WGAN on the ring", COLUMNS, ABOUT)
    recipes = {  # those that take longest first
        WGAN["rounds"]: Recipe("ring-wgan", defaults=True),
        GAN: Recipe("ring-gan"),
        WGAN["moves"]: as_many_moves("ring-wgan"),
        WGAN["swept"]: Recipe("ring-wgan"),
    }
    measured = workers.train(made.title, recipes)
    for name in (GAN, WGAN["moves"], WGAN["rounds"], WGAN["swept"]):
        made.add(name, measured[name])
    made.quote("GAN: VEEGAN, table 1", "1", "99.3")
    made.quote("Unrolled GAN: VEEGAN, table 1", "7.6", "35.6")
    made.quote("VEEGAN: VEEGAN, table 1", "8", "52.9")
    made.quote("WGAN-GP: GDPP, table 1", "6.8", "59.6")
    made.quote("GDPP-GAN: GDPP, table 1", "8", "71.7")
    made.quote("GAN: PacGAN, table 1", "6.3 ± 0.5", "98.2 ± 0.2", "0.45 ± 0.09")
    made.quote("PacGAN2: PacGAN, table 1", "7.9 ± 0.1", "95.6 ± 2.0", "0.07 ± 0.03")
    made.quote("GAN, plain loop", "8, 8", "88.6, 82.0", "0.053, 0.184", "0.038, 0.091")
    made.quote("WGAN defaults, plain loop", "8", "7.5", "0.571", "0.004")
    made.quote("WGAN tuned, plain loop", "8", "71.9", "0.018", "0.003")
    gan = measured[GAN]
    swept, defaults = (measured[WGAN[row]].median("high_quality") for row in ("swept", "moves"))
    made.checks += [
        at_least("GAN swept, median of the modes", gan.median("modes"), 8, ".0f"),
        at_least("GAN swept, median high quality, %", 100 * gan.median("high_quality"), 70, ".1f"),
        at_least("WGAN swept over its defaults, as many moves, median high quality", swept / defaults, 5, ".1f"),
    ]
    return made


def as_many_moves(pipeline: str) -> Recipe:
    """The published defaults for as many moves, of critic and generator together, as the pipeline itself makes."""
    own, published = (Recipe(pipeline, defaults=defaults).load() for defaults in (False, True))
    rounds = own.training.rounds * (own.structure().n_critic + 1) // (published.structure().n_critic + 1)
    return Recipe(pipeline, (f"training.rounds={rounds}",), defaults=True)
