#!/usr/bin/env bash
# Makes the renditions of a directory of images with the commands of libvips and prints one line of JSON:
#   vips.sh FOLDER [--works A|B] [--repeat R] [--out DIR] [--processes N]
#
# Works A: JPEG 2048, WebP 1024, WebP 512 and JPEG 160 by the longest edge, quality 80. Works B: one JPEG of 512 px.
# Each image is decoded once, to an uncompressed TIFF, and every rendition made from the next larger one; one image per
# core, one thread per image. The cost of the commands includes six process starts per image.
set -euo pipefail

folder=$1
shift
works=A repeat=1 out='' processes=$(nproc)
while [ $# -gt 0 ]; do
  case $1 in
    --works) works=$2 ;;
    --repeat) repeat=$2 ;;
    --out) out=$2 ;;
    --processes) processes=$2 ;;
    *) echo "vips.sh: unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
[ -n "$out" ] || { out=$scratch/out; mkdir "$out"; }
folder=$(cd "$folder" && pwd)
out=$(cd "$out" && pwd)

# From 8.15 on `keep` selects the metadata; before that `strip` removes all.
version=$(vips --version | grep -o '[0-9]*\.[0-9]*\.[0-9]*' | head -n 1)
IFS=. read -r major minor _ <<<"$version"
if [ "$major" -gt 8 ] || [ "$minor" -ge 15 ]; then bare=keep=none; else bare=strip; fi

render_one() { # works, out, scratch, bare, path
  local works=$1 out=$2 bare=$4 path=$5 name own
  name=$(basename "$path")
  local jpeg="Q=80,optimize_coding,background=255,$bare" webp="Q=80,effort=4,$bare"
  if [ "$works" = B ]; then
    vipsthumbnail "$path" --size '512x512>' --import-profile srgb --export-profile srgb -o "$out/$name.small.jpg[$jpeg]"
    return
  fi
  # An image without a profile is sRGB; libvips must not assume another profile.
  # Metadata are removed here, since the WebP writer of some versions always keeps them.
  own=$(mktemp -d -p "$3")
  vipsthumbnail "$path" --size '2048x2048>' --import-profile srgb --export-profile srgb -o "$own/large.tif[$bare]"
  vips copy "$own/large.tif" "$out/$name.large.jpg[$jpeg]"
  vipsthumbnail "$own/large.tif" --size '1024x1024>' -o "$own/medium.tif[$bare]"
  vips copy "$own/medium.tif" "$out/$name.medium.webp[$webp]"
  vipsthumbnail "$own/medium.tif" --size '512x512>' -o "$out/$name.small.webp[$webp]"
  vipsthumbnail "$own/medium.tif" --size '160x160>' -o "$out/$name.thumb.jpg[$jpeg,subsample_mode=off]"
  rm -r "$own"
}
export -f render_one
export VIPS_CONCURRENCY=1

images=$(find "$folder" -mindepth 1 | wc -l)
began=$(date +%s%N)
for _ in $(seq "$repeat"); do
  find "$folder" -mindepth 1 -print0 | sort -z |
    xargs -0 -n 1 -P "$processes" bash -c 'render_one "$@"' _ "$works" "$out" "$scratch" "$bare"
done
ended=$(date +%s%N)
# The second line of `times` is the CPU time of all children; in a pipe it would run in a child without any.
times >"$scratch/times"
cpu=$(awk 'END { split($1, u, "[ms]"); split($2, s, "[ms]"); print ((u[1] + s[1]) * 60 + u[2] + s[2]) * 1000 }' "$scratch/times")

bytes=''
presets='large medium small thumb'
[ "$works" = A ] || presets=small
for preset in $presets; do
  sum=$(find "$out" -name "*.$preset.*" -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
  bytes="$bytes${bytes:+, }\"$preset\": $sum"
done
awk -v images="$((images * repeat))" -v ns="$((ended - began))" -v cpu="$cpu" -v version="$version" -v works="$works" \
  -v processes="$processes" -v bytes="$bytes" 'BEGIN {
  printf "{\"peer\": \"vips\", \"version\": \"%s\", \"works\": \"%s\", \"settings\": \"%d processes\", ", version, works, processes
  printf "\"images\": %d, \"images_per_s\": %.2f, ", images, images / ns * 1e9
  printf "\"cpu_ms_per_image\": %.2f, \"bytes_by_rendition\": {%s}}\n", cpu / images, bytes
}'
