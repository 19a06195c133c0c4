"""SyncDiffusion: coherent panoramas by synchronised joint diffusion (Lee et al., NeurIPS 2023)."""

__version__ = "0.1.0"
