"""Real HTJ2K code streams, and files of them, as HealthImaging has images after their import.

The streams are of 8 x 8 samples of 16 bits, made once by OpenJPH 0.26.3 (through imagecodecs 2026.3.6, reversible
5/3), which decoded each of them to what it was made of. Some have an odd number of octets.
"""

from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import HTJ2KLossless

from tests import samples

STREAMS = (
    b64decode(
        "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ"
        "kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAEwAAf+TwAAlrwUHdAAAAMAAEsAAEoCQAQd0APgAR3QAwAATQAAS"
        "AIbxAIJ0APoHUwDAACeAAEru7qCnwnUA8MA6lAD/2Q=="
    ),
    b64decode(
        "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ"
        "kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAGUAAf+TwAAl8wUHdAAAAMAAEsAAEsAAEoD0AMd0APQAx3QA6AAH"
        "dADAABJAABJAABIA/BPTAPwT0wD1M9MAwAAmgABUQAAnEP64H9QAIBT+wAGWVQAkUvngI9QA/9k="
    ),
    b64decode(
        "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ"
        "kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAHwAAf+TwAAlzwUHdAAAAMAAEsAAEsAAEoD6AEd0APoAR3QA+wEH"
        "dADAABUQAAVEAAEol4sC8gBClAAXigvkAEGUAPsAA9QAwAAroAAV8AAJQLUVBUO3LoOLSM4RQbYAtVUVTEEXl/xAECoaMbcA++AIVAD/2Q=="
    ),
    b64decode(
        "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ"
        "kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAABsAAf+TwAAl8QUHdAAAAAAAAP/Z"
    ),
)


def make_images(
    folder: Path, frames: tuple[int, ...], *, syntax: str = HTJ2KLossless, seed: int = 21,
    change: Callable[[pydicom.Dataset], Any] = lambda data_set: None,
) -> list[samples.Sample]:
    """One series of images with so many frames, of the streams in turn; `change` is made to each of them."""
    made = samples.make_series(folder, instances=len(frames), rows=8, columns=8, seed=seed)
    for sample, count in zip(made, frames, strict=True):
        data_set = pydicom.dcmread(sample.path)
        data_set.PixelData = encapsulate([STREAMS[number % len(STREAMS)] for number in range(count)], has_bot=False)
        data_set["PixelData"].VR = "OB"
        data_set["PixelData"].is_undefined_length = True
        data_set.file_meta.TransferSyntaxUID = syntax
        if count > 1:
            data_set.NumberOfFrames = count
            data_set.FrameIncrementPointer = 0x00181063
            data_set.FrameTime = "40.5"
        change(data_set)
        data_set.save_as(sample.path, enforce_file_format=True)
    return made


def streams(data_set: pydicom.Dataset) -> list[bytes]:
    """The code streams in a data set, without what pads them."""
    count = int(data_set.get("NumberOfFrames", 1))
    found = generate_frames(data_set.PixelData, number_of_frames=count)
    return [each[:-1] if each.endswith(b"\xff\xd9\0") else each for each in found]
