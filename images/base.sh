#!/bin/sh
# Prints a root file system of Debian 13 as a tar archive, made from Debian's packages: a base image for those who
# have no registry. It has what the builder image would install, without manuals and texts in other languages.
set -eu
exec mmdebstrap --quiet --variant=minbase --include=ca-certificates,git,python3,tini \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*/*' \
    --dpkgopt='path-exclude=/usr/share/perl/*' --dpkgopt='path-exclude=/usr/lib/*/perl/*' \
    --customize-hook='rm -rf "$1"/var/cache/apt "$1"/var/lib/apt/lists "$1"/var/log/apt "$1"/var/cache/ldconfig' \
    "${SUITE:-trixie}" -
