"""Packaging; the metadata is in pyproject.toml."""

import setuptools
from setuptools.command import build_py


class BuildWithoutTests(build_py.build_py):
    """Leaves out the tests that lie beside the data sets, as `tfds new` places them."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if not module[1].endswith(("_test", "dummy"))]


setuptools.setup(cmdclass={"build_py": BuildWithoutTests})
