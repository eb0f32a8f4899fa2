"""Seeds of different purposes share no key."""

import jax
import numpy as np

from ppo_jax.seeds import seed_keys
from tune.protocol.purposes import TUNING, VALIDATION


def test_purposes_are_disjoint_and_keep_their_numbers():
    keys = [jax.random.key_data(seed_keys(0, p, 100)) for p in (TUNING, VALIDATION)]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 200
    # Stored studies are resumed by these numbers.
    assert (TUNING, VALIDATION) == (0, 1)
