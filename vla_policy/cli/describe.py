"""vla-describe: ask a policy's vision-language backbone about images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vla_policy.cli.common import print_line, user_errors
from vla_policy.cli.help import config_parser
from vla_policy.interfaces import InputError
from vla_policy.utils.configuration import options

MORE = """keys, after the question:

  draft: ...   # a smaller model with the same tokenizer (a policy's checkpoint or one of transformers), which drafts
               # the answer; the answer is the same, and how many passes it took is printed

example:
  vla-describe outputs/train/language/checkpoints/last top.png "where is the T seen from the red goal?"
"""


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the question and the answer."""
    description = "Ask the vision-language backbone of a policy about one image of each of its cameras."
    parser = config_parser("vla-describe", description, None, MORE)
    parser.add_argument("CHECKPOINT", help="folder or hub name")
    parser.add_argument(
        "IMAGE", type=Path, nargs="+", help="an image of each camera, in the order of the policy's interface"
    )
    parser.add_argument("QUESTION", help="what to ask, in quotes")
    words = sys.argv[1:] if arguments is None else arguments
    own = [word for word in words if word.startswith("draft=")]
    draft = options(own, {"draft": ""})["draft"]
    given = parser.parse_args([word for word in words if word not in own])

    import torch

    from vla_policy.models.drafts import text_drafter
    from vla_policy.models.loading import load_policy

    policy = load_policy(given.CHECKPOINT)
    if policy.backbone is None:
        raise InputError(f"{given.CHECKPOINT}: expected a policy with a vision-language backbone, found none to ask")
    cameras = policy.interface.cameras
    if len(given.IMAGE) != len(cameras):
        raise InputError(f"IMAGE: expected {len(cameras)} images, of {cameras}, found {len(given.IMAGE)}")
    frames = [
        _read(path, policy.interface.observations[key].shape) for path, key in zip(given.IMAGE, cameras, strict=True)
    ]
    tensors = [torch.from_numpy(frame)[None].to(policy.device) for frame in frames]
    drafter = text_drafter(policy.backbone, draft, "auto") if draft else None
    reply = policy.backbone.reply(tensors, given.QUESTION, drafter)
    print_line(f"question: {given.QUESTION}\nanswer:   {policy.backbone.text(reply.tokens)}")
    if draft:
        print_line(f"decoded:  {len(reply.tokens)} tokens in {reply.passes} passes")


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The image (H, W, 3) uint8; `InputError` unless it has the camera's size."""
    if not path.is_file():
        raise InputError(f"{path}: expected an image, found no such file")
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path}: expected an image, found {str(error).splitlines()[0]}") from None
    if pixels.shape != tuple(shape):
        wanted, found = (f"{size[1]} x {size[0]}" for size in (shape, pixels.shape))
        raise InputError(f"{path}: expected {wanted} pixels as the policy's camera has, found {found}")
    return pixels


if __name__ == "__main__":
    main()
