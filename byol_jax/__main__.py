"""``python -m byol_jax``: the same as ``byol-jax``."""

from byol_jax.cli import main

if __name__ == "__main__":
    main()
