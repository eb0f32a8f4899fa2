import numpy as np
from PIL import Image

from ppo_jax.plots import draw_learning_curve, picture


def test_seeds_that_have_all_diverged_are_drawn_without_a_warning(tmp_path):
    returns = np.array([[1.0, 2.0], [np.nan, 3.0], [np.nan, np.inf]])
    with picture(tmp_path / "curve.png", 10, 5.5) as figure:
        draw_learning_curve(figure.subplots(), "diverged", [1, 2, 3], returns)
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (1300, 715)
