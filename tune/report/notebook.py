"""The results of a study as the value of a notebook's cell."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppo_jax.notebook import card
from tune.report.figures import draw_history, draw_validation_curves
from tune.report.marks import draw_legend
from tune.report.results import NOT_VALIDATED, StudyResults
from tune.report.text import score


class ShownResults(StudyResults):
    """Results that a notebook shows as a card with a picture."""

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {
            "best on tuning seeds": score(self.best_score),
            "baseline on tuning seeds": score(self.baseline_score),
        }
        if self.recommendation is not None:
            rows["recommended"] = f"the {self.recommendation.name}"
            rows |= self.recommendation.changes
            rows["command"] = self.recommendation.command
        validation = self.validation

        def draw(axes: Axes) -> None:
            if validation is None:
                draw_history(axes, self)
            else:
                draw_validation_curves(axes, validation)
            assert isinstance(axes.figure, Figure)
            draw_legend(axes.figure)

        return card(self.title, rows, text=self.verdict or NOT_VALIDATED, draw=draw)
