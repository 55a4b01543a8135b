"""A notebook's kernel: ipykernel's own, with the notebooks' folder first on ``sys.path``."""

from ipython_cluster._start import with_notebooks, without_working_folder

without_working_folder()

from ipykernel import kernelapp  # noqa: E402


class IPKernelApp(kernelapp.IPKernelApp):
    """Called like ipykernel's, since what is configured goes by the name of the class."""

    def init_path(self):
        # IPython puts '' (the notebook's own folder) first; the root of the notebooks comes right after it.
        with_notebooks()
        super().init_path()


def main():
    IPKernelApp.launch_instance()


if __name__ == "__main__":
    main()
