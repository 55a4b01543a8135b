"""Which conda packages pip can have, and under which name.

conda packs whatever a program needs: compilers, libraries, R, drivers. PyPI has the Python part, and other
things under some of conda's names (`ffmpeg`, `nodejs` and `boost` there are not those programs), so asking it
would install the wrong thing without a word. A name that neither a table nor a pattern knows is taken to be a
Python package of the same name; should PyPI not have it, the installation says so.
"""

from __future__ import annotations

import re

# conda's name -> PyPI's, where they differ.
RENAMED = {
    "arviz-base": "arviz",
    "astropy-base": "astropy",
    "bokeh-core": "bokeh",
    "dask-core": "dask",
    "geopandas-base": "geopandas",
    "iris": "scitools-iris",
    "keras-base": "keras",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "nbconvert-core": "nbconvert",
    "networkx-base": "networkx",
    "opencv": "opencv-python-headless",
    "panel-core": "panel",
    "plotly-base": "plotly",
    "prompt_toolkit": "prompt-toolkit",
    "pyarrow-core": "pyarrow",
    "pymc-base": "pymc",
    "pyqt": "pyqt5",
    "pytables": "tables",
    "python-blosc": "blosc",
    "python-graphviz": "graphviz",
    "python-kaleido": "kaleido",
    "python-lmdb": "lmdb",
    "python-xxhash": "xxhash",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "py-lightgbm": "lightgbm",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "ruamel-yaml": "ruamel.yaml",
    "ruamel_yaml": "ruamel.yaml",
    "seaborn-base": "seaborn",
    "tensorflow-base": "tensorflow",
    "tensorflow-cpu": "tensorflow",
    "tensorflow-gpu": "tensorflow",
    "torchvision-cpu": "torchvision",
    "uvicorn-standard": "uvicorn[standard]",
    "vtk-base": "vtk",
}

# They only choose between conda's builds of other packages: PyPI's wheels bring what they need.
MEANINGLESS = frozenset(
    {"nomkl", "blas", "cpuonly", "pytorch-mutex", "openblas-devel", "python_abi", "_openmp_mutex"}
)

# Channels that hold the same packages under the same names; any other channel is one of its own.
COMMON_CHANNELS = frozenset({"conda-forge", "defaults", "anaconda", "main", "pkgs/main", "free", "msys2"})

_ONLY_CONDA = frozenset(
    """
    anaconda arpack arrow-cpp autoconf automake bash bash-completion bcftools bedtools binutils bison blast
    blosc boost boost-cpp bowtie bowtie2 bwa bzip2 c-ares c-compiler ca-certificates cairo ccache cdo
    cfitsio clang clangxx cling compilers conda conda-build conda-env conda-lock conda-pack constructor cuda
    cudatoolkit cudnn curl cxx-compiler dbus dcmtk docker doxygen eccodes eigen emacs esmf esmpy exiftool
    expat fenics fenics-dolfinx ffmpeg fftw fish flex fontconfig fonts-anaconda fortran-compiler freetype
    freexl fribidi gcc gdal gdb gdbm geant4 geckodriver geos geotiff gettext gflags gfortran ghc ghostscript
    giflib git git-annex git-lfs gl2ps glew glib glog glpk gmp gmsh gmt gnuplot gnutls go
    gobject-introspection graphite2 graphviz grass gromacs gsl gst-plugins-base gstreamer gtk gtk2 gtk3 gtk4
    gxx harfbuzz hdf4 hdf5 healpix hmmer htop htslib icu imagemagick intel-openmp ipopt isl jags jasper
    jemalloc jpeg jq json-c julia kealib krb5 kubernetes-client lame lammps lapack leptonica llvm
    llvm-openmp llvmdev lua lzo m4 mafft magma make mamba mariadb maven mesalib metis micromamba minimap2
    mkl mkl-devel mkl-include mongodb mono mpc mpfr mpi mpich msmpi mumps muscle mysql nano nasm nb_conda
    nb_conda_kernels nccl ncl nco ncurses ncview netcdf netcdf-fortran nettle nginx nodejs nspr nss ocl-icd
    ocl-icd-system octave openblas opencascade opencl-headers openh264 openjdk openjpeg openmm openmpi
    openslide openssl orc p7zip pandoc pango parallel paraview parmetis patch patchelf pcre pcre2 perl petsc
    phantomjs pigz pixi pixman pkg-config plink plplot pocl poppler popt postgis postgresql proj proj-data
    proj4 pthread-stubs pytorch-cuda qhull qt qt-main qt-webengine qt5 qt6-main r readline redis
    redis-server rhash ripgrep root root_base rstudio rsync ruby rust sage sagelib salmon samtools sbcl
    scala scalapack scotch sed slepc snappy spatialite sqlite stan suitesparse sundials superlu svn tar tbb
    tbb-devel tectonic tensorrt tesseract texinfo texlive texlive-core tiledb tini tk tmux trimmomatic
    udunits2 uncrustify unixodbc unrar unzip util-linux valgrind vcftools vim wget which wxwidgets x264 x265
    xerces-c xeus xeus-cling xorg xvfb xz yaml yaml-cpp yarn zeromq zip zlib zlib-ng zsh zstd
    """.split()  # noqa: SIM905 - a list of 300 quoted words is no better
)
_PATTERNS = re.compile(
    r"""
    _.+                               # _libgcc_mutex and its like
    | r-.+ | bioconductor-.+ | perl-.+ | rb-.+ | lua-.+ | octave-.+ | julia-.+ | ros-.+ | texlive-.+
    | lib.+-(dev|devel|static|headers|ng|proc) | .+-(devel|static|headers|proc|dev-tools)
    | .+_(linux|osx|win)-(64|32|arm64|aarch64|ppc64le) | .+-cos[67]-(x86_64|aarch64)
    | gcc-.+ | gxx-.+ | gfortran-.+ | clang-?\d+.* | clangxx-.+ | llvm-?\d+.* | binutils-.+
    | cuda-.+ | cudnn-.+ | nsight-.+
    | fonts?-.+ | xorg-.+ | gst-.+ | qt\d*-.+ | aws-c-.+ | aws-sdk-cpp
    | lib(blas|cblas|lapack|lapacke|gcc|stdcxx|gfortran|gomp|curl|png|jpeg|tiff|webp|xml2|xslt|zlib
        |ffi|uuid|iconv|uv|sodium|ssh2|nghttp2|protobuf|arrow|parquet|gdal|netcdf|hdf5|rttopo
        |spatialite|kml|deflate|brotli.*|edit|ev|event|expat|gd|git2|glib|gl|glu|llvm.*|clang.*
        |openblas|opencv|pq|sqlite|thrift|tool|unwind|vpx|xcb|xkb.*|boost.*|cu[a-z]+|npp|nv[a-z]+
        |mamba|archive|solv|nsl|xcrypt|zip|zopfli|pcre.*|pciaccess|drm|egl|tpu|torch|abseil|grpc
        |re2.*|utf8proc|google-cloud.*|crc32c|mysqlclient|aec|cap|cups|dap4|fabric|gpg-error|gcrypt
        |hwloc|idn2|jxl|lzma|micro.*|ogg|opus|vorbis|flac|sndfile|theora|systemd0|udev1|usb|wayland
        |x11|va)
    """,
    re.VERBOSE,
)


def on_pypi(name: str, channel: str | None = None) -> str | None:
    """PyPI's name of a conda package; None: pip cannot have it.

    Args:
        name: as environment.yml writes it, in lower case.
        channel: what stands before ``::``; None: nothing.
    """
    if channel is not None and channel not in COMMON_CHANNELS and name not in RENAMED:
        return None
    if name in _ONLY_CONDA or _PATTERNS.fullmatch(name):
        return None
    return RENAMED.get(name) or RENAMED.get(name.replace("_", "-")) or name
