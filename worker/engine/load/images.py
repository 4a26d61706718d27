"""Images as a model takes them, from the bytes of PNG and JPEG files."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planish.contract.errors import InvalidData, MissingDependency

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 32 << 20
MAX_BYTES = 64 << 20
FORMATS = ("PNG", "JPEG")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_TAKEN = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"))


@dataclass(frozen=True)
class ImageForm:
    """What every image becomes.

    Attributes:
        height: in pixels; None for that of the image.
        width: likewise.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        resize: pixels that the shorter side is scaled to before the middle of the image is cut
            out; None: the image must have the size.
    """

    height: int | None
    width: int | None
    channels: int
    resize: int | None


def decode(raw: bytes, form: ImageForm, where: str) -> NDArray[np.uint8]:
    """Return an image as (height, width, channels), 0 to 255.

    Turned upright as its EXIF data says, as datasets does; transparency is left out, not blended.

    Args:
        raw: a whole PNG or JPEG file.
        form: what it becomes.
        where: names the image for errors.

    Raises:
        InvalidData: damaged, of another format, too large, or not of the size.
        MissingDependency: Pillow is not installed.
    """
    image = _opened(raw, where)
    width, height = image.size
    if form.resize is not None:
        image = _resized(image, form.resize, where)
        width, height = image.size
    wanted = (form.height or height, form.width or width)
    if form.resize is None and (height, width) != wanted:
        raise InvalidData(
            f"{where} is {height} x {width} pixels, {wanted[0]} x {wanted[1]} are taken; set "
            "data.preprocess.resize to the pixels that the shorter side becomes before the middle "
            "is cut out"
        )
    if height < wanted[0] or width < wanted[1]:
        raise InvalidData(
            f"{where} is {height} x {width} pixels after data.preprocess.resize {form.resize}; "
            f"the model takes {wanted[0]} x {wanted[1]}"
        )
    top, left = round((height - wanted[0]) / 2), round((width - wanted[1]) / 2)
    image = image.crop((left, top, left + wanted[1], top + wanted[0]))
    pixels = np.asarray(image.convert(MODES[form.channels]), np.uint8)
    return pixels.reshape(*wanted, form.channels)


def _opened(raw: bytes, where: str) -> Image:
    """Return the decoded image; Pillow is asked for its size before it decodes anything."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingDependency(
            "images need Pillow on the worker: pip install 'planish[worker]'"
        ) from None
    if len(raw) > MAX_BYTES:
        raise InvalidData(f"{where} has {len(raw)} bytes; at most {MAX_BYTES} are taken")
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit stands in place of Pillow's warnings
            image = Image.open(io.BytesIO(raw), formats=FORMATS)
            _check(image, where)
            image.load()
            return ImageOps.exif_transpose(image)
    except (InvalidData, MemoryError):
        raise
    except Exception as error:  # decoders fail in any way on damaged files
        raise InvalidData(
            f"{where} is no whole PNG or JPEG image ({type(error).__name__})"
        ) from None


def _check(image: Image, where: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InvalidData(
            f"{where} is {height} x {width} pixels; at most {MAX_PIXELS} in all are taken"
        )
    if image.mode not in _TAKEN:
        raise InvalidData(
            f"{where} has pixels of mode {image.mode}; 8 bits for each channel are taken"
        )


def _resized(image: Image, side: int, where: str) -> Image:
    """Scale the shorter side to `side` pixels, bilinear with antialiasing, as torchvision does."""
    from PIL.Image import Resampling

    width, height = image.size
    longer = max(side, int(side * max(width, height) / min(width, height)))
    if side * longer > MAX_PIXELS:
        raise InvalidData(
            f"{where} is {height} x {width} pixels, which data.preprocess.resize {side} makes "
            f"{side} x {longer}; at most {MAX_PIXELS} in all are taken"
        )
    if image.mode in ("1", "P", "PA"):
        clear = "A" in image.mode or "transparency" in image.info
        image = image.convert("RGBA" if clear else "RGB")
    size = (side, longer) if width <= height else (longer, side)
    return image.resize(size, Resampling.BILINEAR)
