"""`python -m saddlepoint` is `saddle`."""

from .cli import main

main()
