# SPDX-License-Identifier: Apache-2.0
"""What a patch and its neighbours in time look like, whatever is where in it: the rhythm of slots, combs and bursts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfvit_rt.errors import RecordingError

COMPONENTS = 24
_TALL = 4  # patches of time that are looked at together: a carrier's rhythm is slower than one
_FLOOR = 1e-3  # of a power spectrum, far below that of noise


class Textures(nn.Module):
    """Pictures to a few numbers for every patch: the shape of the power spectrum of the picture around it.

    Pixels cannot be foretold where they are noise, and their mean says little about what is on the air; MaskFeat (Wei
    et al. 2022, arXiv 2112.09133) therefore asks for local features of an image. Here they are the logarithm of the
    two-dimensional power spectrum of four patches of time by one of frequency, which does not depend on where exactly
    a burst begins. Its overall level varies most and says least, so its principal components are scaled to the same
    variance.

    Parameters
    ----------
    patch : int
        Side of a patch in pixels.
    """

    mean: Tensor
    basis: Tensor
    taper: Tensor

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.register_buffer(
            "taper",
            torch.hann_window(_TALL * patch)[:, None] * torch.hann_window(patch),
            persistent=False,
        )
        features = self._spectra(torch.zeros(1, patch, patch)).shape[2]
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("basis", torch.zeros(features, min(COMPONENTS, features)))

    @torch.no_grad()
    def fit(self, pictures: Tensor, missing: Tensor) -> None:
        """Find mean and principal components on some pictures; arguments as :meth:`forward` has them.

        Raises
        ------
        RecordingError
            If hardly a patch has all that is around it.
        """
        known = self._spectra(pictures)[self._whole(missing)].double()
        if len(known) < 2:
            raise RecordingError(
                f"textures need pictures that go on for {_TALL * self.patch} steps, and of these none does; use longer "
                "recordings, or [masking] target = 'pixels'"
            )
        values, vectors = torch.linalg.eigh(torch.cov(known.T))
        scaled = (vectors / values.clamp(min=1e-6).sqrt()).flip(1)  # eigenvalues come in ascending order
        self.mean.copy_(known.mean(dim=0))
        self.basis.copy_(scaled[:, : self.basis.shape[1]])

    @torch.no_grad()
    def forward(self, pictures: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
        """Describe every patch.

        Parameters
        ----------
        pictures : (batch, n_steps, n_bins) float32
        missing : (batch, n_steps, n_bins) bool
            Pixels that the window does not have.

        Returns
        -------
        textures : (batch, token, component) float32
            Mean 0 and variance 1 over what they were fitted to.
        whole : (batch, token) bool
            Whether no pixel was missing.
        """
        with torch.autocast(pictures.device.type, enabled=False):
            scaled = (self._spectra(pictures) - self.mean) @ self.basis
        return scaled.clamp(-5, 5), self._whole(missing)

    def _spectra(self, pictures: Tensor) -> Tensor:
        """Logarithm of the power spectra, each four neighbours' mean: (batch, token, feature)."""
        around = self._around(pictures.float())
        around = (around - around.mean(dim=(3, 4), keepdim=True)) * self.taper
        power = torch.fft.rfft2(around).abs().square() / self.taper.square().sum()
        batch, rows, columns = power.shape[:3]
        coarse = F.avg_pool2d(power.flatten(0, 2)[:, None], 2, ceil_mode=True)
        return (coarse + _FLOOR).log().reshape(batch, rows * columns, -1)

    def _around(self, pictures: Tensor) -> Tensor:
        """What lies around every patch; time is continued at a picture's ends: (batch, row, column, step, bin)."""
        beyond = (_TALL - 1) * self.patch // 2
        longer = F.pad(pictures[:, None], (0, 0, beyond, beyond), mode="replicate")[:, 0]
        return longer.unfold(1, _TALL * self.patch, self.patch).unfold(2, self.patch, self.patch)

    def _whole(self, missing: Tensor) -> Tensor:
        gaps = self._around(missing.float()).amax(dim=(3, 4))
        return gaps.flatten(1) == 0
