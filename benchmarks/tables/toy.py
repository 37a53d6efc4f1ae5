"""The four points of the AVB paper: what a posterior of any shape is worth, against a Gaussian one."""

from report import Column, Table, at_least
from trainings import SEEDS, Recipe, Workers

COLUMNS = (
    Column("log p(x)", "log_likelihood", ".3f"),
    Column("error per pixel, x 1000", "reconstruction_pixel", ".1f", 1000),
    Column("ELBO", "elbo", ".3f"),
    Column("KL(q(z), p(z))", "aggregate_kl", ".3f"),
)
ABOUT = """Nats per image. Mescheder et al. (2017), section 5.1: four images of 2x2 pixels, two latents, encoder and
decoder of equal size; log p(x) by quadrature (the most there is: -log 4 = -1.386), KL by nearest neighbours of samples.
Theirs trained for 100 000 rounds, the others for 4000. A plain loop: PyTorch only, the same recipe, four seeds."""


def table(workers: Workers) -> Table:
    made = Table("AVB and VAE on four points", COLUMNS, ABOUT)
    measured = workers.train(made.title, {"AVB": Recipe("toy-avb"), "VAE": Recipe("toy-vae")})
    vae, avb = measured["VAE"], measured["AVB"]
    made.add("VAE", vae)
    made.add("AVB", avb)
    made.quote("VAE: Mescheder et al. 2017, table 1", "-1.568", "88.5", "-1.697", "0.165")
    made.quote("AVB: Mescheder et al. 2017, table 1", "-1.403", "5.8", "-1.421", "0.026")
    made.quote("VAE, plain loop", "-1.567", "86.8", "-1.699", "0.144")
    made.quote("AVB, plain loop", "-1.412", "8.9", "-1.426", "0.017")
    for seed, ours, theirs in zip(SEEDS, avb.values("elbo"), vae.values("elbo"), strict=True):
        made.checks.append(at_least(f"AVB's ELBO over VAE's, seed {seed}", ours - theirs, 0.19, ".3f"))
    made.checks.append(at_least("AVB's ELBO, the worst seed", min(avb.values("elbo")), -1.45, ".3f"))
    return made
