#!/usr/bin/env bash
# Does the device's install work on aarch64, and does it rank as this machine does? Makes a Debian arm64 tree, runs it under emulation.
#   sudo tests/arm64/run.sh [FOLDER]     as root, on Debian or Ubuntu; about 1 GB and a quarter of an hour; FOLDER is kept and used again
# SUITE chooses the Python: bookworm 3.11 (default), trixie 3.13.
set -euo pipefail
cd "$(dirname "$0")/../.."

tree=${1:-build/arm64}
suite=${SUITE:-bookworm}
query="a woman in a dark red jacket and light blue trousers with a yellow backpack"

for tool in debootstrap qemu-aarch64-static; do
  command -v "$tool" >/dev/null || {
    echo "$tool is missing: apt-get install debootstrap qemu-user-static" >&2
    exit 1
  }
done
# The kernel hands aarch64 programs to the emulator. F: it is opened now, so that the tree need not hold it.
binfmt=/proc/sys/fs/binfmt_misc
[ -e "$binfmt/register" ] || mount -t binfmt_misc binfmt_misc "$binfmt"
if [ ! -e "$binfmt/qemu-aarch64" ]; then
  magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  printf '%s' ":qemu-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):F" >"$binfmt/register"
fi

if [ ! -e "$tree/.made" ]; then
  mkdir -p "$tree"
  debootstrap --arch=arm64 --variant=minbase --include=python3-venv,ca-certificates "$suite" "$tree"
  touch "$tree/.made"
fi
inside() { chroot "$tree" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$@"; }

# The wheel is of what is committed, and pure Python: it may be made here.
rm -rf "$tree/src" && mkdir "$tree/src"
git archive HEAD | tar -x -C "$tree/src"
python3 -m pip wheel --quiet --no-deps --wheel-dir "$tree/src" "$tree/src"
# Some networks have certificates of their own.
cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
cp /etc/resolv.conf "$tree/etc/resolv.conf"
mountpoint -q "$tree/proc" || mount -t proc proc "$tree/proc"
mountpoint -q "$tree/dev" || mount --bind /dev "$tree/dev"
trap 'umount "$tree/proc" "$tree/dev"' EXIT

inside python3 -m venv /root/venv
inside /root/venv/bin/python -m pip install --quiet "/$(cd "$tree" && echo src/tagclip-*.whl)[cpu]"
inside /root/venv/bin/tagclip --version
inside /root/venv/bin/python -c 'import platform; print(platform.machine(), "Python", platform.python_version())'
inside /root/venv/bin/tagclip bundle verify /src/runtime/data/bundle

# The whole way, and the encoders alone on the same pictures.
clip=runtime/data/example.mp4
rm -rf "$tree/found"
tagclip search "$query" "$clip" --json --out "$tree/found" >"$tree/clip-here.json"
inside /root/venv/bin/tagclip search "$query" "/src/$clip" --json >"$tree/clip-there.json"
tagclip search "$query" "$tree/found/crops" --json >"$tree/crops-here.json"
inside /root/venv/bin/tagclip search "$query" /found/crops --json >"$tree/crops-there.json"
python3 tests/arm64/compare.py "$tree"/clip-{here,there}.json 0.05
python3 tests/arm64/compare.py "$tree"/crops-{here,there}.json 0.001
