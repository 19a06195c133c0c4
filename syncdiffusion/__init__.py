"""SyncDiffusion: coherent panoramas by synchronised joint diffusion (Lee et al., NeurIPS 2023)."""
