"""Side-by-side measurements; see main.py and profile_step.py."""
