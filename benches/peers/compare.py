"""Runs the programs of `benches/peers` and pm alternately on a directory of images, scores their renditions, and prints a
table and ratios. `scripts/bench imaging` prepares and calls it.

Speeds drift, so only programs that ran in the same round are compared: a ratio is the median of the
ratios of the rounds.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import quality

HERE = Path(__file__).parent
# Formats that every program reads; pm's other formats are not compared.
ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
RENDITIONS = {"A": ["large", "medium", "small", "thumb"], "B": ["small"]}
SAMPLE_EVERY_S = 0.05


def say(text):
    print(f"scripts/bench: {text}", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--works", default="A,B")
    parser.add_argument("--cache", type=Path, required=True, help="scratch folder, with node/ if sharp is there")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the raw results")
    parser.add_argument("--score", type=Path, required=True, help="the program of benches/score.rs")
    parser.add_argument("--pm", type=Path, required=True, help="examples/imaging.rs, built")
    parser.add_argument("--pm-turbo", type=Path, help="the same with the feature turbo")
    parser.add_argument("--commit", default="unknown")
    return parser.parse_args()


def peers(options):
    """Returns the command of each installed program by name, in the order of a round; `{works}` is filled in later."""
    found = {}
    cores = str(os.cpu_count())
    if (options.cache / "node" / "node_modules" / "sharp").is_dir():
        found["sharp"] = ["node", str(HERE / "sharp.mjs"), "--modules", str(options.cache / "node")]
    found["pm"] = [str(options.pm), "--threads", cores]
    if options.pm_turbo:
        found["pm turbo"] = [str(options.pm_turbo), "--threads", cores]
    found["pm, 1 thread"] = [str(options.pm), "--threads", "1"]
    found["pillow"] = [sys.executable, str(HERE / "pillow.py"), "--processes", cores]
    if shutil.which("vips") and shutil.which("vipsthumbnail"):
        found["vips"] = ["bash", str(HERE / "vips.sh"), "--processes", cores]
    return found


class Memory(threading.Thread):
    """Samples the memory of a process and its descendants, twenty times a second; shared pages count once."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.peak_kib, self.ended = process, 0, threading.Event()

    def run(self):
        while not self.ended.wait(SAMPLE_EVERY_S):
            self.peak_kib = max(self.peak_kib, sum(map(held_kib, family(self.process))))


def family(process):
    found = [process]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found.extend(int(child) for child in (task / "children").read_text().split())
        except OSError:
            pass
    return found


def held_kib(process):
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def run(name, command, folder, works, repeat, out=None):
    """Runs a program; returns its line of JSON, with the memory of all its processes."""
    whole = [*command, "--works", works, "--repeat", str(repeat)]
    whole += ["--out", str(out)] if out else []
    # The directory is the last argument of programs, and the first of the shell script.
    whole = [*whole[:2], str(folder), *whole[2:]] if command[0] in ("bash", "node", sys.executable) else [*whole, str(folder)]
    process = subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    memory = Memory(process.pid)
    memory.start()
    output, errors = process.communicate()
    memory.ended.set()
    memory.join()
    if process.returncode != 0:
        say(f"{name} failed: {errors.strip()[-2000:]}")
        sys.exit(1)
    if errors.strip():
        say(f"{name} printed: {errors.strip()[-2000:]}")
    line = json.loads(output.strip().splitlines()[-1])
    # A peak reported by the process is more exact than the samples.
    own = line.get("peak_rss_mb", 0) if name not in ("pillow", "vips") else 0
    line["peak_rss_mb"] = round(max(own, memory.peak_kib / 1024), 1)
    return {**line, "peer": name, "works": works}


def tuned(command, folder, works):
    """Tries the pipelines and thread counts that sharp's users choose; returns the fastest command."""
    cores = os.cpu_count()
    candidates = [
        ["--structure", structure, "--concurrency", str(threads), "--in-flight", str(in_flight)]
        for structure in (["cascade", "each"] if works == "A" else ["cascade"])
        for threads, in_flight in [(1, 2 * cores), (1, cores), (2, 2 * cores), (2, cores)]
    ]
    speeds = []
    for candidate in candidates:
        line = run("sharp", [*command, *candidate], folder, works, 1)
        speeds.append((line["images_per_s"], candidate))
        say(f"sharp, works {works}, {line['settings']}: {line['images_per_s']} images/s")
    return [*command, *max(speeds)[1]]


def image_links(options):
    """Creates a directory of links to the images that every program reads."""
    folder = options.cache / "images"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = [path for path in sorted(options.corpus.iterdir()) if path.suffix.lower() in ENDINGS and path.is_file()]
    for path in found:
        (folder / path.name).symlink_to(path.resolve())
    if not found:
        say(f"no image in {options.corpus}")
        sys.exit(1)
    return folder, found


def machine():
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform()}


class Journal:
    """Writes the raw results, one per line."""

    def __init__(self, options, count):
        today = datetime.date.today().isoformat()
        options.runs.mkdir(parents=True, exist_ok=True)
        self.path = options.runs / f"{today}-imaging.jsonl"
        self.common = {"machine": machine(), "commit": options.commit, "corpus": f"{options.corpus.name}, {count} images"}

    def write(self, line):
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        with self.path.open("a") as file:
            file.write(json.dumps({"date": now, **line, **self.common}) + "\n")


def compare(options, works, folder, journal):
    """Returns the lines of all rounds and the mean scores, by program."""
    commands = peers(options)
    if "sharp" in commands:
        commands["sharp"] = tuned(commands["sharp"], folder, works)
    # Unmeasured: fills the page cache, and leaves the files that are scored.
    outs = {}
    for name in commands:
        if name == "pm, 1 thread":
            continue
        outs[name] = options.cache / "out" / works / name.replace(" ", "-")
        shutil.rmtree(outs[name], ignore_errors=True)
        outs[name].mkdir(parents=True)
        run(name, commands[name], folder, works, 1, outs[name])
    lines = {name: [] for name in commands}
    for number in range(1, options.rounds + 1):
        for name, command in commands.items():
            line = {**run(name, command, folder, works, options.repeat), "round": number}
            lines[name].append(line)
            journal.write(line)
            say(f"works {works}, round {number}: {name} {line['images_per_s']} images/s")
    scores = quality.scores(options.score, folder, outs, RENDITIONS[works], options.cache / "quality")
    for name, means in scores.items():
        journal.write({"peer": name, "works": works, "ssimulacra2": means})
    return lines, scores


def median(lines, key):
    return statistics.median(line[key] for line in lines)


def table(works, lines, scores):
    names = RENDITIONS[works]
    rows = [["work " + works, "images/s", "CPU ms", "peak MB", "bytes", f"SSIMULACRA2 ({' / '.join(names)})"]]
    for name, of_it in lines.items():
        means = " / ".join(f"{scores[name][preset]:.1f}" for preset in names) if name in scores else ""
        total = sum(of_it[0]["bytes_by_rendition"].values())
        rows.append([name, f"{median(of_it, 'images_per_s'):.2f}", f"{median(of_it, 'cpu_ms_per_image'):.0f}",
                     f"{median(of_it, 'peak_rss_mb'):.0f}", f"{total:,}", means])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1])]
        print("  ".join([*cells, row[-1]]))
    print()


def ratio(of_it, of_other, key):
    return statistics.median(mine[key] / other[key] for mine, other in zip(of_it, of_other))


def ratios(works, lines, scores):
    for name in [name for name in lines if name in ("pm", "pm turbo")]:
        for other in [other for other in lines if not other.startswith("pm")]:
            mine, its = lines[name], lines[other]
            speed, memory = ratio(mine, its, "images_per_s"), ratio(mine, its, "peak_rss_mb")
            cpu = ratio(mine, its, "cpu_ms_per_image")
            size = sum(mine[0]["bytes_by_rendition"].values()) / sum(its[0]["bytes_by_rendition"].values())
            score = statistics.mean(scores[name][preset] - scores[other][preset] for preset in RENDITIONS[works])
            print(f"work {works}: {name} {speed:.2f} × {other} (median of {len(mine)} interleaved rounds; CPU {cpu:.2f} ×; "
                  f"bytes {size:.2f} ×; memory {memory:.2f} ×; SSIMULACRA2 {score:+.1f})")
    if os.cpu_count() > 1:
        both = ratio(lines["pm"], lines["pm, 1 thread"], "images_per_s")
        print(f"work {works}: pm with {os.cpu_count()} threads {both:.2f} × pm with one")


def main():
    options = arguments()
    works_list = options.works.upper().split(",")
    if not set(works_list) <= set(RENDITIONS) or options.rounds < 1 or options.repeat < 1:
        say("--works takes A, B or A,B; --rounds and --repeat take numbers from 1 on")
        sys.exit(2)
    folder, found = image_links(options)
    journal = Journal(options, len(found))
    began = time.monotonic()
    outcomes = [(works, *compare(options, works, folder, journal)) for works in works_list]
    versions = {lines[0]["peer"]: lines[0] for _, by_name, _ in outcomes for lines in by_name.values()}
    say(f"raw results in {journal.path}; {time.monotonic() - began:.0f} s")
    print(f"\n{len(found)} images of {options.corpus}, {options.rounds} rounds, {journal.common['machine']['cpu']}, "
          f"{os.cpu_count()} cores; " + ", ".join(f"{name} {line['version']}" for name, line in versions.items() if "version" in line))
    for works, lines, _ in outcomes:
        if "sharp" in lines:
            print(f"work {works}: sharp at its fastest here: {lines['sharp'][0]['settings']}")
    print()
    for outcome in outcomes:
        table(*outcome)
    for outcome in outcomes:
        ratios(*outcome)


if __name__ == "__main__":
    main()
