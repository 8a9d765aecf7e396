"""Makes the renditions of a directory of images with Pillow and prints one line of JSON:
python pillow.py FOLDER [--works A|B] [--repeat R] [--out DIR] [--processes N]

Works A: JPEG 2048, WebP 1024, WebP 512 and JPEG 160 by the longest edge, quality 80. Works B: one JPEG of 512 px.
One process per core; each image is decoded once and every rendition made from the next larger one.
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import time
from pathlib import Path

import PIL
from PIL import Image, ImageCms, ImageOps

# A decoder that scales while decoding must keep this margin, so that the resize filter has enough pixels.
MARGIN = 1.5
SRGB = ImageCms.createProfile("sRGB")
images = []


def decoded(source, edge):
    """Returns the image upright and in sRGB, with a longest edge of at least `edge` times the margin if possible."""
    image = Image.open(io.BytesIO(source))
    if image.format == "JPEG":
        image.draft("RGB", (int(edge * MARGIN), int(edge * MARGIN)))
    profile = image.info.get("icc_profile")
    has_alpha = image.has_transparency_data
    image = ImageOps.exif_transpose(image)
    mode = "RGBA" if has_alpha else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    # The image is reduced before its colors are converted, since that costs time per pixel.
    image = reduced(image, edge)
    if profile:
        try:
            image = ImageCms.profileToProfile(image, io.BytesIO(profile), SRGB)
        except ImageCms.PyCMSError:
            pass
    return image


def reduced(image, edge):
    if max(image.size) <= edge:
        return image
    scale = edge / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS)


def jpeg(image, subsampling="4:2:0"):
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80, optimize=True, subsampling=subsampling)
    return file.getvalue()


def webp(image):
    file = io.BytesIO()
    # Clears `exif` and `icc_profile`, which `info` may still contain.
    image.save(file, "WEBP", quality=80, method=4, exif=b"", icc_profile=b"")
    return file.getvalue()


def render(source, works):
    if works == "B":
        return {"small.jpg": jpeg(decoded(source, 512))}
    large = decoded(source, 2048)
    medium = reduced(large, 1024)
    small = reduced(medium, 512)
    thumb = reduced(small, 160)
    return {
        "large.jpg": jpeg(large),
        "medium.webp": webp(medium),
        "small.webp": webp(small),
        "thumb.jpg": jpeg(thumb, "4:4:4"),
    }


def cpu_ms():
    times = os.times()
    return (times.user + times.system) * 1e3


def work(task):
    index, works, out = task
    before = cpu_ms()
    name, source = images[index]
    files = render(source, works)
    if out:
        for ending, data in files.items():
            (Path(out) / f"{name}.{ending}").write_bytes(data)
    sizes = {ending.split(".")[0]: len(data) for ending, data in files.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return index, sizes, cpu_ms() - before, os.getpid(), peak


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--works", default="A")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--out")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    images.extend((path.name, path.read_bytes()) for path in sorted(options.folder.iterdir()))
    tasks = [
        (index, options.works, options.out if first else None)
        for first in [True] + [False] * (options.repeat - 1)
        for index in range(len(images))
    ]
    sums, seen, cpu, peaks = {}, set(), 0.0, {}
    with multiprocessing.get_context("fork").Pool(options.processes) as pool:
        began = time.perf_counter()
        for index, sizes, spent, process, peak in pool.imap_unordered(work, tasks):
            cpu += spent
            peaks[process] = max(peak, peaks.get(process, 0))
            if index not in seen:
                seen.add(index)
                for preset, size in sizes.items():
                    sums[preset] = sums.get(preset, 0) + size
        seconds = time.perf_counter() - began
    print(json.dumps({
        "peer": "pillow",
        "version": PIL.__version__,
        "works": options.works,
        "settings": f"{options.processes} processes",
        "images": len(tasks),
        "images_per_s": round(len(tasks) / seconds, 2),
        "cpu_ms_per_image": round(cpu / len(tasks), 2),
        "peak_rss_mb": round(sum(peaks.values()) / 1024, 2),
        "bytes_by_rendition": sums,
    }))


if __name__ == "__main__":
    main()
