"""Which distribution an import comes from, for what notebooks commonly import.

Only names in these tables are ever suggested for installation. A module that nobody knows may be a helper the
author forgot to commit, and a package of that name on an index is then a stranger's.
"""

from __future__ import annotations

import keyword

# import -> distributions that provide it; the first one is suggested.
DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "Bio": ("biopython",),
    "Crypto": ("pycryptodome", "pycrypto"),
    "Cython": ("cython",),
    "IPython": ("ipython",),
    "MySQLdb": ("mysqlclient",),
    "OpenGL": ("pyopengl",),
    "PIL": ("pillow", "pillow-simd"),
    "PyPDF2": ("pypdf2",),
    "PyQt5": ("pyqt5",),
    "PyQt6": ("pyqt6",),
    "attr": ("attrs",),
    "bs4": ("beautifulsoup4",),
    "cartopy": ("cartopy",),
    "community": ("python-louvain",),
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    "cvxpy": ("cvxpy", "cvxpy-base"),
    "cythonmagic": ("cython",),
    "dask": ("dask",),
    "dateutil": ("python-dateutil",),
    "distributed": ("distributed",),
    "docx": ("python-docx",),
    "dotenv": ("python-dotenv",),
    "eli5": ("eli5",),
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "fitz": ("pymupdf",),
    "fortranmagic": ("fortran-magic",),
    "git": ("gitpython",),
    "google.cloud": ("google-cloud-core", "google-cloud-storage", "google-cloud-bigquery"),
    "google.protobuf": ("protobuf",),
    "graphviz": ("graphviz",),
    "haversine": ("haversine",),
    "igraph": ("igraph", "python-igraph"),
    "imblearn": ("imbalanced-learn",),
    "iris": ("scitools-iris",),
    "jose": ("python-jose",),
    "jwt": ("pyjwt",),
    "kafka": ("kafka-python",),
    "keras": ("keras", "tensorflow", "tensorflow-cpu"),
    "lightgbm": ("lightgbm",),
    "louvain": ("louvain",),
    "magic": ("python-magic",),
    "metpy": ("metpy",),
    "mpl_toolkits.basemap": ("basemap",),
    "mpl_toolkits": ("matplotlib",),
    "mysql": ("mysql-connector-python",),
    "nacl": ("pynacl",),
    "netCDF4": ("netcdf4",),
    "opt_einsum": ("opt-einsum",),
    "osgeo": ("gdal",),
    "pkg_resources": ("setuptools",),
    "plotly": ("plotly",),
    "pptx": ("python-pptx",),
    "psycopg2": ("psycopg2-binary", "psycopg2"),
    "py": ("py", "pytest"),
    "pylab": ("matplotlib",),
    "pymc": ("pymc",),
    "pyximport": ("cython",),
    "rpy2": ("rpy2",),
    "ruamel.yaml": ("ruamel-yaml",),
    "seaborn": ("seaborn",),
    "serial": ("pyserial",),
    "skimage": ("scikit-image",),
    "sklearn": ("scikit-learn",),
    "skopt": ("scikit-optimize",),
    "snappy": ("python-snappy",),
    "sksurv": ("scikit-survival",),
    "slugify": ("python-slugify",),
    "socks": ("pysocks",),
    "talib": ("ta-lib",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-gpu"),
    "tensorflow_hub": ("tensorflow-hub",),
    "tensorflow_probability": ("tensorflow-probability",),
    "umap": ("umap-learn",),
    "usb": ("pyusb",),
    "websocket": ("websocket-client",),
    "win32api": ("pywin32",),
    "wx": ("wxpython",),
    "yaml": ("pyyaml",),
    "zmq": ("pyzmq",),
}  # fmt: skip

# Imported under the name they are installed by (but for - and _).
_SAME = """
accelerate affine aiohttp albumentations altair anndata ansible anyio apache_beam arch arrow arviz asdf
astroplan astropy astroquery audioread autograd awkward bambi bitarray bleach blosc bokeh boto3 botocore
bottle bottleneck bqplot branca casadi catboost category_encoders celery cftime chainer chardet chess click
cloudpickle cmdstanpy cmocean colorama colorcet contextily control corner coverage cryptography cufflinks
cvxopt cycler cytoolz dash dash_bootstrap_components dask_jobqueue dask_ml datasets datashader deap
decorator deepdiff diffusers dill django dlib docopt dowhy duckdb einops emcee emoji entrypoints fastai
fastapi fastcore fastparquet featuretools filterpy fiona flask flax folium fsspec ftfy fuzzywuzzy gast
geemap gensim geodatasets geojson geopandas geopy geoviews gluonts googlemaps gradio graphene
great_expectations gspread gurobipy gym gymnasium h5netcdf h5py hdbscan healpy holoviews httpx
huggingface_hub hvplot hyperopt hypothesis idna imageio imageio_ffmpeg iminuit imutils intake ipycanvas
ipycytoscape ipydatagrid ipyevents ipyleaflet ipympl ipython_genutils ipytree ipyvolume ipyvuetify
ipywidgets jax jaxlib jinja2 joblib jsonschema jupyter_client jupyter_core kaggle kaleido kiwisolver
lazypredict librosa lifelines lightning lime line_profiler llvmlite lmfit localtileserver lxml mahotas
markdown matplotlib matplotlib_inline matplotlib_venn memory_profiler mesa missingno mizani mlflow mlxtend
mne moviepy mpi4py mpmath msgpack multiprocess music21 mypy nbconvert nbformat networkx neurokit2 nibabel
nilearn nltk numba numexpr numpy numpyro obspy openai openpyxl optuna osmnx pandas pandas_datareader
pandas_profiling pandasql panel papermill param parso pathos patsy peewee pendulum pgmpy pika pingouin pint
pip planetary_computer plotnine pmdarima polars pomegranate pooch prettytable prophet psutil pulp pyarrow
pycuda pydantic pydicom pydot pydotplus pyfftw pygame pygments pygraphviz pykalman pylint pymatgen pymc3
pymongo pymysql pynndescent pyod pyomo pyopencl pypandoc pyparsing pyproj pyspark pystac_client pystan
pytesseract pytest pytorch_lightning pytz pyvis pyvista qgrid qiskit qutip rasterio ray redis regex
reportlab requests rich rioxarray rtree s3fs scanpy scapy schemdraw scikit_posthocs scipy scrapy selenium
sentence_transformers sentencepiece setuptools shap shapely simpy six skorch spacy sparse sqlalchemy
sqlmodel squarify stable_baselines3 starlette statsmodels streamlit sunpy sympy tables tabulate tensorboard
tensorboardX tensorly termcolor textblob theano thinc threadpoolctl tifffile tiktoken timm tokenizers toml
toolz torch torchaudio torchmetrics torchtext torchvision tornado tqdm tqdm_joblib traitlets transformers
trimesh tslearn tweepy typer ujson uncertainties uproot urllib3 vaex vega vega_datasets verde vispy wandb
watermark werkzeug widgetsnbextension wordcloud wrapt xarray xgboost xlrd xlsxwriter xlwt yellowbrick
yfinance zarr zfit
"""
DISTRIBUTIONS |= {
    name: (name.replace("_", "-").lower(),) for name in _SAME.split() if name not in DISTRIBUTIONS
}
DISTRIBUTIONS |= {
    "absl": ("absl-py",),
    "cupy": ("cupy-cuda12x", "cupy-cuda13x", "cupy-cuda11x", "cupy"),
    "googleapiclient": ("google-api-python-client",),
    "grpc": ("grpcio",),
    "hydra": ("hydra-core",),
    "tensorflow_serving": ("tensorflow-serving-api",),
    "version_information": ("version-information",),
    "pywt": ("pywavelets",),
    "shapefile": ("pyshp",),
    "SALib": ("salib",),
    "py3Dmol": ("py3dmol",),
    "OpenSSL": ("pyopenssl",),
    "feather": ("feather-format",),
    "progressbar": ("progressbar2",),
    "bayes_opt": ("bayesian-optimization",),
    "surprise": ("scikit-surprise",),
    "skfuzzy": ("scikit-fuzzy",),
    "fbprophet": ("prophet",),
}

# Namespaces that many distributions share: their second part tells.
NAMESPACES = frozenset({"google", "mpl_toolkits", "ruamel", "azure", "sphinxcontrib", "zope"})

# What a distribution surely installs besides itself, for files that lock nothing.
BRINGS: dict[str, tuple[str, ...]] = {
    "altair": ("jinja2", "jsonschema", "narwhals"),
    "arviz": ("numpy", "matplotlib", "scipy", "xarray"),
    "astropy": ("numpy", "pyyaml"),
    "bokeh": ("jinja2", "numpy", "pandas", "pillow", "pyyaml", "tornado", "xyzservices"),
    "dask": ("cloudpickle", "fsspec", "pyyaml", "toolz"),
    "distributed": ("dask", "tornado", "psutil", "msgpack"),
    "geopandas": ("numpy", "pandas", "shapely", "pyproj"),
    "gensim": ("numpy", "scipy"),
    "bqplot": ("ipywidgets", "numpy", "pandas"),
    "h5py": ("numpy",),
    "ipyparallel": ("decorator", "ipykernel", "python-dateutil", "tqdm"),
    "ipykernel": (
        *(
            "ipython",
            "traitlets",
            "jupyter-client",
            "jupyter-core",
            "tornado",
            "pyzmq",
            "psutil",
            "comm",
            "debugpy",
        ),
        *("nest-asyncio", "matplotlib-inline", "packaging"),
    ),
    "ipython": ("decorator", "jedi", "pexpect", "prompt-toolkit", "pygments", "stack-data", "traitlets"),
    "ipyleaflet": ("ipywidgets", "branca", "xyzservices"),
    "ipywidgets": ("ipython", "traitlets", "comm", "widgetsnbextension"),
    "jupyter": ("ipywidgets", "nbconvert", "notebook", "jupyterlab"),
    "jupyterlab": ("notebook-shim", "jinja2", "nbconvert", "nbformat", "jupyter-server", "requests", "httpx"),
    "keras": ("numpy", "h5py"),
    "matplotlib": ("numpy", "pillow", "cycler", "kiwisolver", "pyparsing", "python-dateutil", "packaging"),
    "nbconvert": ("jinja2", "beautifulsoup4", "nbformat", "markupsafe", "pygments"),
    "notebook": ("jupyterlab",),
    "numba": ("numpy", "llvmlite"),
    "pandas": ("numpy", "python-dateutil"),
    "plotnine": ("matplotlib", "pandas", "numpy", "scipy", "statsmodels", "mizani"),
    "pymc": ("numpy", "pandas", "scipy", "arviz"),
    "python-dateutil": ("six",),
    "rasterio": ("affine", "numpy", "click", "attrs"),
    "requests": ("urllib3", "idna", "certifi", "charset-normalizer"),
    "scikit-image": ("numpy", "scipy", "pillow", "networkx", "imageio", "tifffile"),
    "scikit-learn": ("numpy", "scipy", "joblib", "threadpoolctl"),
    "scipy": ("numpy",),
    "seaborn": ("numpy", "pandas", "matplotlib"),
    "statsmodels": ("numpy", "scipy", "pandas", "patsy"),
    "sympy": ("mpmath",),
    "tensorflow": ("numpy", "keras", "h5py", "protobuf", "grpcio", "absl-py", "tensorboard"),
    "torch": ("sympy", "networkx", "jinja2", "fsspec"),
    "torchvision": ("torch", "numpy", "pillow"),
    "transformers": ("numpy", "pyyaml", "regex", "requests", "tqdm", "tokenizers", "huggingface-hub"),
    "xarray": ("numpy", "pandas"),
}

# Python 2's standard library where Python 3 has another name for it: no distribution is the answer.
PYTHON2 = frozenset(
    """
    BaseHTTPServer ConfigParser Cookie HTMLParser Queue ScrolledText SimpleHTTPServer SocketServer StringIO
    Tkinter UserDict __builtin__ anydbm cPickle cStringIO commands cookielib copy_reg dummy_thread
    exceptions htmlentitydefs httplib md5 sets sha thread tkFileDialog tkMessageBox urllib2 urlparse
    xmlrpclib
    """.split()  # noqa: SIM905 - quoted words are no better
)

# Left the standard library with 3.12 or 3.13; whether they are there depends on the repository's Python.
GONE = frozenset(
    """
    aifc asynchat asyncore audioop cgi cgitb chunk crypt distutils imghdr imp mailcap msilib nis nntplib
    ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib uu xdrlib lib2to3
    """.split()  # noqa: SIM905
)

# Their import starts what a process cannot hand to those that it forks: MPI, R.
ONE_PROCESS = frozenset(
    {"dolfin", "dolfinx", "fenics", "firedrake", "mpi4py", "petsc4py", "rpy2", "slepc4py"}
)


def is_module(text: str) -> bool:
    """Whether this is how a module is named: identifiers with dots between them."""
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split("."))
