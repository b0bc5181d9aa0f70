"""The package as a whole: its examples, its oldest Python, and that pip can install it."""

import ast
import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import shoal

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Rules(unittest.TestCase):
    def modules(self):
        return [importlib.import_module("shoal." + m.name) for m in pkgutil.iter_modules(shoal.__path__)]

    def hub_modules(self):
        """Those of shoal_jupyterhub, where there is a hub to import them."""
        if not importlib.util.find_spec("jupyterhub"):
            return []
        import shoal_jupyterhub

        return [importlib.import_module("shoal_jupyterhub." + m.name) for m in pkgutil.iter_modules(shoal_jupyterhub.__path__)]

    def test_examples_in_docstrings(self) -> None:
        tried = 0
        for m in [shoal, *self.modules(), *self.hub_modules()]:
            found = doctest.testmod(m, verbose=False)
            self.assertEqual(found.failed, 0, m.__name__)
            tried += found.attempted
        self.assertGreater(tried, 20)

    def test_python_3_9_can_read_it(self) -> None:
        for m in [*self.modules(), *self.hub_modules()]:
            with open(m.__file__, encoding="utf-8") as f:
                text = f.read()
            ast.parse(text, feature_version=(3, 9))
            self.assertLessEqual(text.count("\n"), 700, m.__name__)

    def test_only_the_standard_library(self) -> None:
        known = getattr(sys, "stdlib_module_names", None)
        if known is None:
            self.skipTest("Python 3.10 and later know what is theirs")
        optional = {"cloudpickle", "IPython", "pandas"}
        hubs = {"jupyterhub", "tornado", "traitlets"}  # what jupyterhub itself stands on
        for m in [*self.modules(), *self.hub_modules()]:
            with open(m.__file__, encoding="utf-8") as f:
                tree = ast.parse(f.read())
            for node in ast.walk(tree):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                for n in names:
                    self.assertIn(n.partition(".")[0], set(known) | (hubs if m.__name__.startswith("shoal_jupyterhub") else optional), m.__name__)

    def test_everything_public_is_described(self) -> None:
        for name in shoal.__all__:
            value = getattr(shoal, name)
            if callable(value):
                self.assertTrue((value.__doc__ or "").strip(), name)
        for cls in (shoal.Pool, shoal.Job, shoal.Map):
            for name, value in vars(cls).items():
                if not name.startswith("_") and callable(value):
                    self.assertTrue((value.__doc__ or "").strip(), f"{cls.__name__}.{name}")
        with self.assertRaises(AttributeError):
            shoal.no_such_thing

    @unittest.skipUnless(importlib.util.find_spec("cloudpickle"), "cloudpickle is not installed: scripts/setup test")
    def test_the_guide_s_examples_run(self) -> None:
        guide = os.path.join(os.path.dirname(os.path.dirname(HERE)), "docs", "guides", "python.md")
        if not os.path.exists(guide):
            self.skipTest("there is no guide here")
        with open(guide, encoding="utf-8") as f:
            blocks = re.findall(r"^```python\n(.*?)^```", f.read(), re.M | re.S)
        text = "\n".join(blocks).replace('Pool("lab"', 'Pool("local", workers=4')
        with tempfile.TemporaryDirectory() as top:
            done = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, cwd=top, env=dict(os.environ, PYTHONPATH=HERE))
        self.assertEqual(done.returncode, 0, done.stderr)
        for said in ("['fold 0 of 3\\n', ", "1.414\n", "[0.0, 1.0, 1.4, 1.7, 2.0]", "[2.0, 3.0]", "2 ValueError('no such fold: 2') ValueError: no such fold: 2", "{'succeeded': 20}", "8 27 [1, 8] 64"):
            self.assertIn(said, done.stdout)

    def test_pip_installs_it_without_a_network(self) -> None:
        if not all(importlib.util.find_spec(m) for m in ("pip", "setuptools", "wheel")):
            self.skipTest("pip, setuptools and wheel are not installed")
        with tempfile.TemporaryDirectory() as top:
            source = os.path.join(top, "source")
            shutil.copytree(HERE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
            done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-index", "--no-deps", "--target", top + "/lib", source],
                                  capture_output=True, text=True, env=dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_ROOT_USER_ACTION="ignore"))  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            code = "import shoal, os; print(shoal.__version__, shoal.Pool('local').submit(pow, 2, 5).result(), os.path.dirname(shoal.__file__))"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=top, env=dict(os.environ, PYTHONPATH=top + "/lib"))
            self.assertEqual(done.stdout.split(), [shoal.__version__, "32", os.path.join(top, "lib", "shoal")], done.stderr)
            if importlib.util.find_spec("jupyterhub"):
                code = "from importlib.metadata import entry_points as e; print(*(next(iter(e(group='jupyterhub.' + g, name='shoal'))).load().__name__ for g in ('spawners', 'authenticators')))"
                done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=top, env=dict(os.environ, PYTHONPATH=top + "/lib"))
                self.assertEqual(done.stdout.split(), ["ShoalSpawner", "ShoalAuthenticator"], done.stderr)


if __name__ == "__main__":
    unittest.main()
