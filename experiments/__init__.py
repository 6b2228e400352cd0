"""The studies, one command each; `python -m experiments.NAME`."""
