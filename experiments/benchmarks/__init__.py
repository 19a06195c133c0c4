"""How fast the methods are against the code that others would run: ``python -m experiments.benchmarks.run --help``."""
