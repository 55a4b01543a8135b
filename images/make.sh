#!/bin/sh
# Makes ipython-builder and ipython-builder-scipy with podman, and hands them to docker where one answers;
# with docker alone where there is no podman. Environment:
#   BASE           the base image (default: the public Debian 13 slim; without a way to it, one is made from the
#                  machine's Debian packages, which needs mmdebstrap and root)
#   SSL_CERT_FILE  your own authorities, for the packages that are downloaded
set -eu
cd "$(dirname "$0")/.."
public=docker.io/library/debian:13-slim
own=localhost/debian:13-slim

engine=$(command -v podman || command -v docker) || {
    echo "neither podman nor docker is here: install one (Debian: apt-get install podman)" >&2
    exit 69
}

base=${BASE:-}
if [ -z "$base" ]; then
    if "$engine" image inspect "$public" >/dev/null 2>&1 || "$engine" pull --quiet "$public" >/dev/null 2>&1; then
        base=$public
    elif "$engine" image inspect "$own" >/dev/null 2>&1; then
        base=$own
    else
        echo "$public cannot be had here: making $own from Debian's packages" >&2
        images/base.sh | "$engine" import - "$own" >/dev/null
        base=$own
    fi
fi

build() { # NAME CONTAINERFILE BASE
    set -- "$@" --file "$2" --build-arg "BASE=$3" --tag "localhost/$1"
    shift 3
    [ -z "${SSL_CERT_FILE:-}" ] || set -- "$@" --secret "id=ca,src=$SSL_CERT_FILE"
    case $engine in
        *podman) podman build --quiet --format docker --layers "$@" . >/dev/null ;;
        *) DOCKER_BUILDKIT=1 docker build --quiet "$@" . >/dev/null ;;
    esac
}

for image in builder scipy; do
    case $image in
        builder) name=ipython-builder from=$base ;;
        *) name=ipython-builder-$image from=localhost/ipython-builder ;;
    esac
    echo "making $name" >&2
    build "$name" "images/$image/Containerfile" "$from"
    case $engine in
        *podman)
            if docker info >/dev/null 2>&1; then
                podman save --quiet --format docker-archive "localhost/$name" | docker load --quiet >/dev/null
                docker tag "localhost/$name" "$name"
            fi
            ;;
        *) docker tag "localhost/$name" "$name" ;;
    esac
    "$engine" image inspect --format "$name {{.Size}}" "localhost/$name" |
        awk '{ printf "%s: %.0f MB\n", $1, $2 / 1000000 }'
done
