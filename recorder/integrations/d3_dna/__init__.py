"""Records D3-DNA's sampling without changing it.

`attach` wraps its predictor and its denoiser, `attach_model` hooks nothing but its network.
"""

from recorder.integrations.d3_dna.network import attach_model
from recorder.integrations.d3_dna.sampler import MATRICES, attach

__all__ = ["MATRICES", "attach", "attach_model"]
