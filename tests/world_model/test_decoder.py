"""The decoder: it draws what a latent says, patch by patch, and is read back as it was saved."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_world_model import SIZE, picture

from vla_policy.interfaces import InputError
from vla_policy.world_model.decoder import Decoder, DecoderConfig, train_decoder


def test_it_memorises_a_few_pictures() -> None:
    torch.manual_seed(0)
    corners = [picture(np.array(place)) for place in ([0, 0], [0.9, 0.1], [0.3, 0.8], [0.6, 0.5])]
    pictures, latents = torch.from_numpy(np.stack(corners))[:, None], torch.randn(4, 16)
    background = pictures.float().mean(0) / 255
    heard: list[float] = []
    decoder = Decoder(DecoderConfig(16, SIZE, width=32, depth=1), background)
    torch.testing.assert_close(decoder(latents), background.expand(4, -1, -1, -1, -1))  # drawing begins from there
    train_decoder(decoder, lambda: (latents, pictures), 120, on_step=heard.append)
    assert len(heard) == 120
    assert heard[-1] < 0.05 * heard[0]
    drawn = decoder.pictures(latents)
    assert drawn.dtype == torch.uint8
    assert (drawn.float() - pictures.float()).abs().mean() < 6


def test_patches_lie_where_they_belong() -> None:
    decoder = Decoder(DecoderConfig(4, 6, cameras=2, patch_size=4))  # 4 does not divide 6: patches of 3 pixels
    assert decoder.config.patch == 3
    whole = torch.arange(2 * 2 * 6 * 6 * 3).reshape(2, 2, 6, 6, 3)
    corners = [(0, 0), (0, 3), (3, 0), (3, 3)]
    patches = [whole[:, camera, y : y + 3, x : x + 3].flatten(1) for camera in range(2) for y, x in corners]
    torch.testing.assert_close(decoder._assembled(torch.stack(patches, dim=1)), whole)


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    decoder, latents = Decoder(DecoderConfig(4, 8, width=8, heads=2)), torch.randn(2, 4)
    torch.nn.init.normal_(decoder.pixels.weight)
    decoder.save(tmp_path / "decoder.safetensors")
    torch.testing.assert_close(Decoder.load(tmp_path / "decoder.safetensors")(latents), decoder(latents))
    (tmp_path / "other.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"other\.safetensors: expected a decoder"):
        Decoder.load(tmp_path / "other.safetensors")
