# For the steps of the Containerfile: uv, its cache, and your own authorities if there are any.
set -e
export PATH="/build/env/bin:$PATH" UV_CACHE_DIR=/var/cache/uv UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
export PYC_INVALIDATION_MODE=UNCHECKED_HASH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CACHE_DIR=/var/cache/uv/pip
if [ -s /run/secrets/ca.crt ]; then
    export SSL_CERT_FILE=/run/secrets/ca.crt PIP_CERT=/run/secrets/ca.crt
fi
