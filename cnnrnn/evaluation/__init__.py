"""From predictions to metrics, intervals, charts and the report."""
