"""A metric a file: each holds METRIC, and is found by being here. None imports torch before something is computed."""
