"""Which modules notebooks import: magics, Python 2, helpers beside them, and what provides what."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipython_builder import cells, imports, spec
from ipython_builder.errors import RepositoryError


def _notebook(path: Path, *sources: str, **metadata: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [{"cell_type": "code", "metadata": {}, "outputs": [], "source": source} for source in sources]
    path.write_text(json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}))


def _missing(root: Path, *extra: str) -> dict[str, str | None]:
    return {one.module: one.distribution for one in imports.missing(spec.read(root, extra=extra))}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy as np, scipy.stats\nfrom PIL import Image", {"numpy", "scipy", "PIL"}),
        ("from . import helpers\nfrom .more import x", set()),
        ("%matplotlib inline\nimport numpy", {"matplotlib", "numpy"}),
        ("%pylab", {"matplotlib", "numpy"}),
        ("%load_ext Cython", {"Cython"}),
        ("%load_ext autoreload\n%autoreload 2", set()),
        ("%time import numpy", {"numpy"}),
        ("%timeit -n 10 -r 3 import numpy", {"numpy"}),
        ("%px import numpy", {"numpy"}),
        ("!pip install numpy\nimport scipy", {"scipy"}),
        ("files = !ls\nimport scipy", {"scipy"}),
        ("x = %env HOME\nimport scipy", {"scipy"}),
        ("scipy?\nimport scipy", {"scipy"}),
        ("if True:\n    !ls\n    import scipy", {"scipy"}),
        ("%%px --local\nimport numpy", {"numpy"}),
        ("%%time\nimport numpy", {"numpy"}),
        ("\n%%timeit import scipy\nimport numpy", {"numpy", "scipy"}),
        ("%%bash\nimport numpy", set()),
        ("%%html\n<b>import numpy</b>", set()),
        ("%%cython\ncimport numpy", {"Cython"}),
        ("%%R\nimport(x)", {"rpy2"}),
        ("%%writefile job.py\nfrom mpi4py import MPI", {"mpi4py"}),
        ("%%file notes.txt\nimport nothing", set()),
        ("print 'old'\nimport numpy as np, scipy; x = 1\nfrom sympy import *", {"numpy", "scipy", "sympy"}),
        ("try:\n    import cupy\nexcept ImportError:\n    import numpy", set()),
        ("try:\n    import numpy\nexcept ValueError:\n    pass", {"numpy"}),
        ("def f():\n    import numpy", {"numpy"}),
        ("text = '''\n%matplotlib inline\nimport numpy\n'''", set()),
        ("from google.cloud import storage\nimport google.protobuf", {"google.cloud", "google.protobuf"}),
        ("from mpl_toolkits.mplot3d import Axes3D", {"mpl_toolkits"}),
        ("import numpy\n\0", {"numpy"}),
        ("import", set()),
    ],
)
def test_a_cell(source: str, expected: set[str]) -> None:
    assert cells.of_cell(source)[0] == expected


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_cell_is_read(source: str) -> None:
    cells.of_cell("import numpy\n" + source)
    cells.of_cell(source)
    cells.wanted_of_cell("import numpy\n" + source)


def test_provided_by_a_requirement_what_it_brings_and_us(tmp_path: Path) -> None:
    _notebook(
        tmp_path / "a.ipynb",
        "import os, sys, distutils, numpy, pandas, sklearn, yaml, cv2, skimage",
        "import IPython, ipyparallel, ipykernel, zmq, tqdm, dateutil\nfrom IPython.parallel import Client",
    )
    assert _missing(tmp_path) == {
        "cv2": "opencv-python-headless",
        "numpy": "numpy",
        "pandas": "pandas",
        "skimage": "scikit-image",
        "sklearn": "scikit-learn",
        "yaml": "pyyaml",
    }
    assert _missing(tmp_path, "pandas", "Scikit_Learn", "PyYAML", "opencv-python", "scikit-image") == {}


def test_resolved_names_count_and_guesses_then_do_not(tmp_path: Path) -> None:
    _notebook(tmp_path / "a.ipynb", "import numpy, pandas")
    asked = spec.read(tmp_path, extra=["pandas"])
    assert imports.missing(asked) == ()
    assert [one.module for one in imports.missing(asked, resolved=["pandas"])] == ["numpy"]
    assert imports.missing(asked, resolved=["pandas", "numpy"]) == ()


def test_the_repositorys_own_modules(tmp_path: Path) -> None:
    _notebook(
        tmp_path / "course" / "a.ipynb", "import helpers, package, tools, deep, made, fortran_made, lost"
    )
    _notebook(tmp_path / "course" / "b.ipynb", "%%writefile made.py\nx = 1", "!f2py -c -m fortran_made x.f90")
    for name in ("course/helpers.py", "package/__init__.py", "src/tools/core.py", "far/away/deep.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "course" / "helpers.py").write_text("import requests\n")
    (tmp_path / "course" / "test_helpers.py").write_text("import pytest\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "script.py").write_text("import pandas\n")
    assert _missing(tmp_path) == {"lost": None, "requests": "requests"}


def test_a_far_file_does_not_hide_a_well_known_name(tmp_path: Path) -> None:
    _notebook(tmp_path / "a.ipynb", "import requests")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "requests.py").touch()
    assert _missing(tmp_path) == {"requests": "requests"}


def test_unknown_names_are_never_suggested(tmp_path: Path) -> None:
    _notebook(tmp_path / "a.ipynb", "import utils, my_helpers, urllib2, ConfigParser")
    assert _missing(tmp_path) == dict.fromkeys(["ConfigParser", "my_helpers", "urllib2", "utils"])


def test_other_languages_old_formats_and_broken_notebooks(tmp_path: Path) -> None:
    _notebook(tmp_path / "r.ipynb", "library(x)\nimport nothing", kernelspec={"name": "ir", "language": "R"})
    sheet = {"cells": [{"cell_type": "code", "input": ["import numpy\n", "print 1"]}]}
    (tmp_path / "old.ipynb").write_text(json.dumps({"worksheets": [sheet], "nbformat": 3, "metadata": {}}))
    for number, text in enumerate(
        ('{"cells": 3}', '{"cells": [3, {"cell_type": "code", "source": 3}]}', "[", "[]", "")
    ):
        (tmp_path / f"broken{number}.ipynb").write_text(text)
    assert _missing(tmp_path) == {"numpy": "numpy"}


def test_local_packages_answer_for_themselves(tmp_path: Path) -> None:
    _notebook(tmp_path / "a.ipynb", "import mypkg, numpy")
    (tmp_path / "lib" / "mypkg").mkdir(parents=True)
    (tmp_path / "lib" / "mypkg" / "__init__.py").write_text("import scipy")
    (tmp_path / "lib" / "pyproject.toml").write_text(
        '[project]\nname = "mypkg"\nversion = "1"\ndependencies = ["numpy>=1"]\n'
    )
    (tmp_path / "requirements.txt").write_text("./lib\n")
    assert _missing(tmp_path) == {}


def test_the_lectures(tmp_path: Path, shared_repos: Path) -> None:
    bundle = shared_repos / "scientific-python-lectures.bundle"
    subprocess.run(["git", "clone", "-q", bundle, tmp_path / "lectures"], check=True)
    asked = spec.read(tmp_path / "lectures")
    started = time.perf_counter()
    found = imports.missing(asked)
    assert time.perf_counter() - started < 1
    known = {one.module: one.distribution for one in found}
    assert (
        known.items() >= {name: name for name in ("numpy", "scipy", "matplotlib", "sympy", "mpi4py")}.items()
    )
    assert not {"mymodule", "hellofortran", "dcumsum", "functions", "IPython"} & set(known)
    counts = [len(one.notebooks) for one in found]
    assert counts == sorted(counts, reverse=True)
    more = spec.read(tmp_path / "lectures", extra=["numpy", "scipy", "matplotlib", "sympy"])
    assert not {"numpy", "scipy", "matplotlib", "sympy", "pylab"} & {
        one.module for one in imports.missing(more)
    }


# -- what engines import beforehand ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sure", "perhaps"),
    [
        ("import scipy.stats, numpy as np", ["scipy.stats", "numpy"], []),
        ("from matplotlib import pyplot as plt, cm", ["matplotlib"], ["matplotlib.pyplot", "matplotlib.cm"]),
        ("from sklearn.ensemble import X", ["sklearn.ensemble"], ["sklearn.ensemble.X"]),
        ("from sympy import *", ["sympy"], []),
        ("from . import helpers\nfrom .more import x", [], []),
        ("import b, a\ndef f():\n    import d, c\nimport e", ["b", "a", "d", "c", "e"], []),
        ("%matplotlib inline\nimport numpy\n!ls\nnumpy?", ["numpy"], []),
        ("%px import numpy", ["numpy"], []),
        ("%%px --local\nimport numpy\n%time import scipy", ["numpy", "scipy"], []),
        ("%%timeit import scipy\nimport numpy", ["scipy", "numpy"], []),
        ("%%writefile job.py\nimport pandas", ["pandas"], []),
        ("%%writefile job.txt\nimport pandas", [], []),
        ("%%bash\nimport numpy", [], []),
        ("%load_ext Cython\n%pylab", [], []),
        ("import numpy\nprint 'old'", [], []),
        ("with view.sync_imports():\n    import numpy", ["numpy"], []),
        ("view.execute('import numpy, scipy.stats')", [], ["numpy", "scipy.stats"]),
        ("cursor.execute('select 1 from import')", [], []),
        ("@ipp.require('numpy', 'not a module')\ndef f(): pass", [], ["numpy"]),
        ("try:\n    import cupy as np\nexcept ImportError:\n    import numpy as np", [], ["cupy", "numpy"]),
        ("try:\n    import numpy\nexcept ValueError:\n    pass", ["numpy"], []),
    ],
)
def test_what_a_cell_wants(source: str, sure: list[str], perhaps: list[str]) -> None:
    found = cells.wanted_of_cell(source)
    assert [module for module, surely in found if surely] == sure
    assert [module for module, surely in found if not surely] == perhaps


@pytest.mark.parametrize(
    "source",
    ["x = " + "(" * 500 + "1" + ")" * 500, "import numpy\nx = " + "-" * 3000 + "1", "import a" + ".b" * 5000],
)
def test_code_that_no_person_writes(source: str) -> None:
    cells.wanted_of_cell("import numpy\n" + source)


def test_texts_in_texts_end() -> None:
    source = "import numpy"
    for _ in range(8):
        source = "-" * 150 + f"view.execute({source!r})"
    cells.wanted_of_cell(source)


def test_what_engines_import_beforehand(tmp_path: Path) -> None:
    _notebook(
        tmp_path / "a.ipynb",
        "import os, sqlite3, imp, Queue, IPython, ipyparallel as ipp, ipykernel.kernelapp",
        "import scipy.stats\nfrom PIL import Image, ImageDraw\nfrom mpi4py import MPI",
        "import helpers, package.part, written\nfrom helpers import thing",
        "%%writefile written.py\nimport pandas",
    )
    _notebook(tmp_path / "b.ipynb", "import numpy", "%%px\nimport scipy.stats, xarray")
    (tmp_path / "helpers.py").write_text("import networkx\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "part.py").write_text("import requests\n")
    (tmp_path / "test_helpers.py").write_text("import pytest\n")
    packages = tmp_path / ".environment"
    for name in ("PIL/Image.py", "mpi4py/MPI.so", "helpers/thing.py"):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    asked = spec.read(tmp_path)
    sure = ("scipy.stats", "PIL", "pandas", "numpy", "xarray", "networkx")
    assert imports.preload(asked) == sure
    assert imports.preload(asked, folders=[tmp_path / "nothing", packages]) == (
        *sure[:2],
        "PIL.Image",
        *sure[2:],
    )


@pytest.mark.parametrize(
    "file", ["sub.py", "sub/__init__.py", "sub.cpython-313-x86_64-linux-gnu.so", "sub.abi3.so"]
)
def test_a_name_that_is_a_module(tmp_path: Path, file: str) -> None:
    _notebook(tmp_path / "a.ipynb", f"from package import sub, function, {'x' * 300}")
    path = tmp_path / ".environment" / "package" / file
    path.parent.mkdir(parents=True)
    path.touch()
    found = imports.preload(spec.read(tmp_path), folders=[tmp_path / ".environment"])
    assert found == ("package", "package.sub")


def test_what_the_repository_adds_and_excludes(tmp_path: Path) -> None:
    _notebook(tmp_path / "a.ipynb", "import numpy, tensorflow.keras, tensorflow_hub, sklearn.svm, sklearn")
    (tmp_path / ".ipython-builder.toml").write_text(
        '[pool]\npreload = ["numpy", "mpi4py", "sqlite3"]\nexclude = ["tensorflow", "sklearn.svm"]\n'
    )
    found = imports.preload(spec.read(tmp_path))
    assert found == ("numpy", "tensorflow_hub", "sklearn", "mpi4py", "sqlite3")


@pytest.mark.parametrize("module", ["helpers", "package.part", "tools", "written"])
def test_its_own_module_is_not_to_be_preloaded(tmp_path: Path, module: str) -> None:
    _notebook(tmp_path / "a.ipynb", "%%file written.py\nx = 1")
    for name in ("helpers.py", "package/part.py", "src/tools/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".ipython-builder.toml").write_text(f'[pool]\npreload = ["{module}"]\n')
    with pytest.raises(
        RepositoryError, match=rf"\.ipython-builder\.toml: '{module}' in preload of \[pool\]"
    ) as caught:
        imports.preload(spec.read(tmp_path))
    assert f"remove {module}" in (caught.value.hint or "")


def test_a_package_that_is_installed_from_the_repository_may_be_preloaded(tmp_path: Path) -> None:
    (tmp_path / "lib" / "mine").mkdir(parents=True)
    (tmp_path / "lib" / "mine" / "__init__.py").touch()
    (tmp_path / "lib" / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "1"\n')
    (tmp_path / "requirements.txt").write_text("./lib\n")
    (tmp_path / ".ipython-builder.toml").write_text('[pool]\npreload = ["mine"]\n')
    assert imports.preload(spec.read(tmp_path)) == ("mine",)


def test_the_lectures_have_something_to_import_beforehand(tmp_path: Path, shared_repos: Path) -> None:
    bundle = shared_repos / "scientific-python-lectures.bundle"
    subprocess.run(["git", "clone", "-q", bundle, tmp_path / "lectures"], check=True)
    found = imports.preload(spec.read(tmp_path / "lectures"))
    assert {"numpy", "scipy.integrate", "matplotlib.pyplot", "sympy"} <= set(found)
    assert not {"os", "mpi4py", "mymodule", "IPython", "hellofortran"} & set(found)
    assert len(found) == len(set(found))
