"""Evaluation: predictions, metrics, confidence intervals, charts and the report."""
