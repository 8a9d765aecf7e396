"""Decodes the fixtures of the imaging tests with Pillow, and prints lines for `expected.tsv`: python expectations.py FOLDER

`list.tsv` in the directory names each expectation and its file. If it gives bounds, Pillow's Lanczos filter reduces the
image to them first. A line contains the name, the dimensions and a grid of 16 × 16 cells: for a fixture the mean color of
each cell, weighted by alpha; for a reduced image the pixel in the middle of each cell.
"""

import io
import sys
from pathlib import Path

import numpy
from PIL import Image, ImageCms, ImageOps

CELLS = 16
SRGB = ImageCms.createProfile("sRGB")


def upright(path):
    """Returns the first frame: upright, in sRGB, eight bits per sample, with alpha if the image has it."""
    image = Image.open(path)
    profile, transparent = image.info.get("icc_profile"), image.has_transparency_data
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((numpy.asarray(image).astype(numpy.uint32) * 255 + 32_767) // 65_535).astype(numpy.uint8), "L")
    mode = "RGBA" if transparent else "RGB"
    if profile and image.mode == "RGBA":
        # The profile applies only to the color channels.
        colors = ImageCms.profileToProfile(image.convert("RGB"), io.BytesIO(profile), SRGB)
        colors.putalpha(image.getchannel("A"))
        return colors
    if profile:
        return ImageCms.profileToProfile(image, io.BytesIO(profile), SRGB, outputMode=mode)
    return image.convert(mode)


def reduced(image, across, down, fit):
    """Returns the image reduced to the bounds, or cropped to their aspect ratio; never enlarged."""
    width, height = image.size
    if fit == "cover":
        scale = max(across / width, down / height)
        assert scale < 1, "the fixtures fill their boxes"
        kept = across / scale, down / scale
        left, top = (width - kept[0]) / 2, (height - kept[1]) / 2
        return image.resize((across, down), Image.Resampling.LANCZOS, box=(left, top, left + kept[0], top + kept[1]))
    scale = min(1, across / width, down / height)
    size = tuple(max(1, int(side * scale + 0.5)) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS) if scale < 1 else image


def on_white(image):
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def means(samples):
    height, width, _ = samples.shape
    cells = numpy.zeros((CELLS, CELLS, 4), dtype=numpy.uint8)
    for row in range(CELLS):
        for column in range(CELLS):
            cell = samples[row * height // CELLS:(row + 1) * height // CELLS, column * width // CELLS:(column + 1) * width // CELLS]
            cell = cell.reshape(-1, 4).astype(numpy.uint64)
            alphas = int(cell[:, 3].sum())
            colors = [int((cell[:, part] * cell[:, 3]).sum()) for part in range(3)]
            cells[row, column, :3] = [(2 * color + alphas) // (2 * alphas) if alphas else 0 for color in colors]
            cells[row, column, 3] = (2 * alphas + len(cell)) // (2 * len(cell))
    return cells


def points(samples):
    height, width, _ = samples.shape
    rows = [(2 * cell + 1) * height // (2 * CELLS) for cell in range(CELLS)]
    columns = [(2 * cell + 1) * width // (2 * CELLS) for cell in range(CELLS)]
    cells = samples[numpy.ix_(rows, columns)].copy()
    cells[cells[:, :, 3] == 0] = 0
    return cells


def main():
    folder = Path(sys.argv[1])
    print("# Written by scripts/expectations: name, pixels across and down, and 16 × 16 cells as Pillow sees them.")
    images = {}
    for line in (folder / "list.tsv").read_text().splitlines():
        name, source, across, down, fit, output = line.split("\t")
        if source not in images:
            images[source] = upright(folder / source)
        image = images[source]
        if across:
            image = reduced(image, int(across), int(down), fit)
        image = on_white(image) if output == "jpeg" else image
        samples = numpy.asarray(image.convert("RGBA"))
        cells = points(samples) if across else means(samples)
        cells = cells if (cells[:, :, 3] != 255).any() else cells[:, :, :3]
        print(name, image.width, image.height, numpy.ascontiguousarray(cells).tobytes().hex(), sep="\t")


if __name__ == "__main__":
    main()
