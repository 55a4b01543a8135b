#!/bin/sh
# Locks what the images hold: UV is the uv to do it with.
#   builder/ipython_builder/locks/image.txt   the viewer as everywhere, and what the tool needs beside it
set -eu
uv=$1
cd "$(dirname "$0")/../builder/ipython_builder/locks"
export UV_PYTHON_DOWNLOADS=never
bounds=$(mktemp)
trap 'rm -f "$bounds"' EXIT
sed -n 's/^\([A-Za-z0-9._-]*==[^\\]*\)\\\{0,1\}$/\1/p' viewer.txt > "$bounds"
# pyarrow (170 MB) moves variables, jedi completes and debugpy debugs: none of it in the tool's environment.
"$uv" pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
    --constraint "$bounds" --no-emit-package pyarrow --no-emit-package jedi --no-emit-package debugpy \
    viewer.in ../../../setup.cfg -o image.txt

#   images/scipy/requirements.txt   the scientific set, with the versions of our runtime where both have one
cd ../../../images/scipy
sed -n 's/^\([A-Za-z0-9._-]*==[^\\]*\)$/\1/p' ../../builder/ipython_builder/locks/runtime.txt > "$bounds"
"$uv" pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
    --constraint "$bounds" requirements.in -o requirements.txt
