"""Moved: ``python -m tune.report FOLDER --dashboard`` prepares a study for optuna-dashboard."""

if __name__ == "__main__":
    raise SystemExit("error: use `python -m tune.report FOLDER --dashboard`")
