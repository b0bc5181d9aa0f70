"""Progress and tables."""

import io
import os
import subprocess
import sys
import unittest
from unittest import mock

import shoal
from shoal import _show

from . import project

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Progress(unittest.TestCase):
    def setUp(self) -> None:
        self.pool = shoal.Pool("debug")
        self.addCleanup(self.pool.close)

    def test_a_line_on_a_terminal(self) -> None:
        out = Terminal()
        with mock.patch.object(sys, "stderr", out), mock.patch.object(_show, "EVERY", 0), mock.patch("builtins.print"):
            self.pool.map(project.double, range(3), name="line").wait(progress=True)
        lines = out.getvalue().split("\r\033[K")
        self.assertEqual(lines[-1], "line: 3 of 3 done (3 succeeded)\n")
        self.assertIn("line: 1 of 3 done (1 succeeded, 2 queued)", lines)

    def test_a_few_lines_in_a_log(self) -> None:
        out = io.StringIO()
        with mock.patch.object(sys, "stderr", out), mock.patch.object(_show, "EVERY", 0), mock.patch("builtins.print"):
            self.pool.map(project.double, range(100), name="log").wait(progress=True)
            self.pool.map(project.double, range(100)).wait()
        self.assertLessEqual(len(out.getvalue().splitlines()), 11)
        self.assertTrue(out.getvalue().endswith("log: 100 of 100 done (100 succeeded)\n"))

    def test_nothing_is_taken_for_markup(self) -> None:
        job = self.pool.run("false", name="a")
        job._name = "<script>alert(1)</script>"
        self.assertNotIn("<script>", job.wait()._repr_html_())
        self.assertIn("&lt;script&gt;", job._repr_html_())

    def test_a_notebook_gets_tables_that_change(self) -> None:
        shown = []

        class Handle:
            def update(self, content: str) -> None:
                shown.append(content)

        class Display:
            HTML = staticmethod(lambda text: text)

            @staticmethod
            def display(content: str, display_id: bool) -> Handle:
                shown.append(content)
                return Handle()

        with mock.patch.object(_show, "in_notebook", return_value=True), mock.patch.object(_show, "EVERY", 0), mock.patch.dict(sys.modules, {"IPython": mock.Mock(), "IPython.display": Display}):
            with mock.patch("builtins.print"):
                self.assertEqual(list(self.pool.map(project.double, range(2))), [0, 2])
        self.assertGreater(len(shown), 1)
        self.assertIn("2 of 2 done", shown[-1])
        self.assertFalse(_show.in_notebook())


class Notebook(unittest.TestCase):
    """The example notebook, in a real kernel."""

    def test_the_example_runs(self) -> None:
        top = os.path.dirname(os.path.dirname(HERE))
        notebook = os.path.join(top, "examples", "sweep.ipynb")
        python = "/usr/bin/python3"
        if subprocess.run([python, "-c", "import nbconvert, ipykernel"], capture_output=True).returncode:
            if os.environ.get("CI") == "true":
                self.fail("nbconvert or ipykernel is missing: scripts/setup test")
            self.skipTest("nbconvert and ipykernel are not installed")
        import json
        import tempfile

        with tempfile.TemporaryDirectory() as out:
            env = dict(os.environ, PYTHONPATH=HERE, SHOAL_POOL="local", HOME=out, JUPYTER_PLATFORM_DIRS="0", PATH="/usr/bin:/bin")
            patient = "--ExecutePreprocessor.startup_timeout=300"
            done = subprocess.run([python, "-m", "nbconvert", "--to", "notebook", "--execute", patient, "--output-dir", out, notebook], capture_output=True, text=True, env=env, timeout=900)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(os.path.join(out, "sweep.ipynb"), encoding="utf-8") as f:
                cells = json.load(f)["cells"]
        outputs = json.dumps([c.get("outputs") for c in cells])
        self.assertIn("text/html", outputs)
        self.assertIn("8 of 8 done", outputs)
        self.assertIn("accuracy", outputs)


if __name__ == "__main__":
    unittest.main()
