"""Quality of renditions: SSIMULACRA2 against a plain Lanczos reduction of the full image.

Pillow decodes both sides, so a fault of the decoder under test cannot hide itself; the reference is reduced in floating
point from every pixel of the file, upright and in sRGB, and laid on white where it is transparent.
"""

import io
import multiprocessing
import os
import shutil
import statistics
import subprocess
from pathlib import Path

import numpy
from PIL import Image, ImageCms, ImageOps

SRGB = ImageCms.createProfile("sRGB")


def on_white(image):
    """Returns eight-bit colors without transparency."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def whole(path):
    """Returns the reference image at full size."""
    image = Image.open(path)
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if profile:
        try:
            mode = "RGBA" if image.has_transparency_data else "RGB"
            image = ImageCms.profileToProfile(image, io.BytesIO(profile), SRGB, outputMode=mode)
        except ImageCms.PyCMSError:
            pass
    # Blended with white before the reduction, so that transparent edges have the right weight.
    return on_white(image)


def reference(image, size):
    """Returns the image reduced in one step, rounded once at the end."""
    planes = [plane.convert("F").resize(size, Image.Resampling.LANCZOS) for plane in image.split()]
    samples = numpy.stack([numpy.asarray(plane) for plane in planes], axis=-1)
    return Image.fromarray(numpy.clip(numpy.rint(samples), 0, 255).astype(numpy.uint8), "RGB")


def prepare(task):
    """Writes the references and renditions of one image as PPM; returns the pairs to score."""
    source, outs, presets, scratch = task
    Image.MAX_IMAGE_PIXELS = None
    image = whole(source)
    pairs = []
    for preset in presets:
        for name, out in outs.items():
            found = sorted(out.glob(f"{glob_name(source.name)}.{preset}.*"))
            if len(found) != 1:
                raise SystemExit(f"{name} made {len(found)} renditions {preset} of {source.name}")
            rendition = on_white(Image.open(found[0]))
            width, height = rendition.size
            against = scratch / f"{source.name}.{width}x{height}.ppm"
            if not against.exists():
                reference(image, rendition.size).save(against)
            decoded = scratch / f"{source.name}.{preset}.{name.replace(' ', '-')}.ppm"
            rendition.save(decoded)
            pairs.append((against, decoded, name, preset))
    return sorted(pairs, key=lambda pair: pair[0])


def glob_name(name):
    return "".join(f"[{letter}]" if letter in "[]*?" else letter for letter in name)


def score(program, pairs):
    lines = "".join(f"{against}\t{decoded}\n" for against, decoded, _, _ in pairs)
    answer = subprocess.run([program], input=lines, capture_output=True, text=True)
    if answer.returncode != 0:
        raise SystemExit(f"the scorer failed: {answer.stderr.strip()}")
    return [float(line) for line in answer.stdout.split()]


def scores(program, folder, outs, presets, scratch):
    """Returns the mean scores by program and rendition."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    tasks = [(Path(source), outs, presets, scratch) for source in sorted(folder.iterdir())]
    found = {name: {preset: [] for preset in presets} for name in outs}
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        for pairs in pool.imap_unordered(prepare, tasks):
            for (against, decoded, name, preset), value in zip(pairs, score(program, pairs)):
                found[name][preset].append(value)
            # The PPM files of all images would fill the disk.
            for path in {path for pair in pairs for path in pair[:2]}:
                path.unlink()
    return {name: {preset: round(statistics.mean(values), 2) for preset, values in by_preset.items()}
            for name, by_preset in found.items()}
