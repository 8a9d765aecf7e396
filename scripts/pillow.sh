# shellcheck shell=bash
# Installs a Python with a pinned Pillow and numpy. Sourced by the scripts that compare pm with them.

pillow=12.3.0
numpy=2.3.5

say() { printf '%s: %s\n' "scripts/$(basename "$0")" "$*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

prepare_python() { # folder
  has python3 || fail "python3 is missing: Pillow needs it"
  if ! "$1/bin/python" -c "import PIL, numpy; assert (PIL.__version__, numpy.__version__) == ('$pillow', '$numpy')" 2>/dev/null; then
    say "installing Pillow $pillow and numpy $numpy into $1"
    python3 -m venv --clear "$1" || fail "python3 (3.11 or newer) cannot create an environment: on Debian install the package python3-venv"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "pillow==$pillow" "numpy==$numpy" ||
      fail "pip could not install Pillow and numpy; both need python 3.11 or newer"
  fi
}
