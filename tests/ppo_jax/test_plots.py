import numpy as np
from PIL import Image

from ppo_jax.plots import plot_learning_curve


def test_seeds_that_have_all_diverged_are_drawn_without_a_warning(tmp_path):
    returns = np.array([[1.0, 2.0], [np.nan, 3.0], [np.nan, np.inf]])
    plot_learning_curve("diverged", [1, 2, 3], returns, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (1300, 715)
