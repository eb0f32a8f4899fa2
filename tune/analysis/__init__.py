"""Analysis of a study: surrogate model, importances, bounds of the search space, pruning.

Start at :func:`tune.analysis.analysis.analyse`.
"""
