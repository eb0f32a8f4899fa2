"""Films of the recommended and of the default policy, for the report."""

from collections.abc import Mapping
from pathlib import Path

from ppo_jax import policy
from ppo_jax.environments import make
from ppo_jax.errors import UserError
from ppo_jax.files import make_folder
from ppo_jax.playback import drawing, film
from tune.evidence.validation import Validation
from tune.protocol.study_folder import StudyFolder


def make_films(validation: Validation, folder: StudyFolder) -> None:
    """Film an episode of each policy in `folder`, unless it has been, or cannot be drawn."""
    settings = validation.settings
    try:
        environment = make(settings.env, settings.env_kwargs)
        drawing.require_drawable(environment)
        for place, path in _places(validation, folder).values():
            if place.is_dir() and not _is_filmed(place, path):
                shown = drawing.in_short(policy.load(place), environment)
                make_folder(path.parent)
                film.write(path, shown)
    except UserError:
        return


def load_films(validation: Validation, folder: StudyFolder) -> Mapping[str, bytes]:
    """Return ``winner`` and ``baseline``, as far as there is a film of them -> a GIF."""
    return {
        name: path.read_bytes()
        for name, (place, path) in _places(validation, folder).items()
        if _is_filmed(place, path)
    }


def _places(validation: Validation, folder: StudyFolder) -> Mapping[str, tuple[Path, Path]]:
    """Return name of a configuration -> its policy and its film, the recommended one first."""
    verdict = validation.verdict
    recommended = "baseline" if verdict.recommended is verdict.baseline else "winner"
    policies = {recommended: folder.policy}
    if recommended == "winner":
        policies["baseline"] = folder.baseline_policy
    return {name: (place, folder.films / f"{name}.gif") for name, place in policies.items()}


def _is_filmed(place: Path, path: Path) -> bool:
    """Return whether `path` is a film of the policy in `place`, and whole."""
    try:
        if path.stat().st_mtime < (place / "policy.json").stat().st_mtime:
            return False
        gif = path.read_bytes()
    except OSError:
        return False
    return gif.startswith(b"GIF8") and gif.endswith(b";")
