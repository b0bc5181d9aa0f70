"""What travels with a function, from scripts, notebooks and projects."""

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest
import zipfile
from io import BytesIO
from typing import Dict, List

import shoal
from shoal import _ship

from . import project

by_value = unittest.skipUnless(importlib.util.find_spec("cloudpickle"), "cloudpickle is not installed: scripts/setup test")
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Project(unittest.TestCase):
    """Scripts as a user runs them, in a project of their own."""

    def setUp(self) -> None:
        self.top = os.path.realpath(tempfile.mkdtemp(prefix="shoal-ship-"))
        self.addCleanup(shutil.rmtree, self.top)

    def write(self, files: Dict[str, str]) -> None:
        for name, text in files.items():
            path = os.path.join(self.top, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as f:
                f.write(textwrap.dedent(text))

    def python(self, *args: str, code: str = "", without: bool = False, cwd: str = "") -> "subprocess.CompletedProcess[str]":
        """Runs Python there, ``without`` cloudpickle."""
        env = dict(os.environ, PYTHONPATH=HERE)
        if without:
            self.write({"without/cloudpickle.py": 'raise ImportError("not here")\n'})
            env["PYTHONPATH"] = os.path.join(self.top, "without") + os.pathsep + HERE
        return subprocess.run([sys.executable, *args], input=code, capture_output=True, text=True, cwd=os.path.join(self.top, cwd), env=env, timeout=120)

    def check(self, done: "subprocess.CompletedProcess[str]", want: str) -> None:
        self.assertEqual((done.stdout, done.returncode), (want, 0), done.stderr)

    SCRIPT = {
        "pyproject.toml": "",
        "src/tools/__init__.py": "",
        "src/tools/deep.py": "from .more import factor\ndef scale(x): return x * factor()\n",
        "src/tools/more.py": "def factor():\n    import lazily\n    return lazily.FACTOR\n",
        "src/lazily.py": "FACTOR = 7\n",
        "src/train.py": """
            import shoal
            from tools.deep import scale

            class Broken(Exception):
                pass

            BASE = 1

            def work(x):
                if x == 2:
                    raise Broken("at", x)
                return scale(x) + BASE

            class Model:
                def __init__(self, x): self.x = x
                def __eq__(self, other): return self.x == other.x

            def fit(model): return Model(model.x + 1)

            @shoal.remote(pool="local", cpus=1)
            def shout(text): return text.upper()

            if __name__ == "__main__":
                with shoal.Pool("local", workers=2) as p:
                    m = p.map(work, range(4), errors="return")
                    found = list(m)
                    print(found[0], found[1], type(found[2]) is Broken, found[2].args, found[3])
                    print(p.submit(fit, Model(1)).result() == Model(2))
                    print(p.submit(shout, "a").result(), shout.remote("b").result(), shout("c"))
        """,
    }
    SAID = "1 8 True ('at', 2) 22\nTrue\nA B C\n"

    def test_a_script_with_a_guard(self) -> None:
        self.write(self.SCRIPT)
        for without in (False, True):
            with self.subTest(without=without):
                self.check(self.python("src/train.py", without=without), self.SAID)

    def test_a_module_run_as_a_script(self) -> None:
        self.write(self.SCRIPT)
        self.check(self.python("-m", "train", without=True, cwd="src"), self.SAID)

    @by_value
    def test_a_script_without_a_guard(self) -> None:
        self.write({"s.py": 'import shoal\ndef f(x): return x\nprint(list(shoal.Pool("local").map(f, [1])))\n'})
        self.check(self.python("s.py"), "[1]\n")
        done = self.python("s.py", without=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn('if __name__ == "__main__":', done.stderr)

    @by_value
    def test_a_prompt_and_a_notebook(self) -> None:
        code = textwrap.dedent("""
            import shoal
            import numbers
            class Mine(Exception): pass
            k = 3
            def f(x):
                if x > 1: raise Mine(x)
                return x * k
            with shoal.Pool("local", workers=2) as p:
                m = p.map(f, range(3), errors="return")
                r = list(m)
                print(r[:2], type(r[2]) is Mine)
                print(list(p.map(lambda x: -x, [5])))
        """)
        self.check(self.python("-", code=code), "[0, 3] True\n[-5]\n")
        done = self.python("-", code=code, without=True)
        self.assertRegex(done.stderr.strip().split("\n")[-2], "ShipError: cannot send what is defined in __main__: it has no file .* and cloudpickle is not installed")
        self.assertIn("install cloudpickle", done.stderr.strip().split("\n")[-1])

    def test_what_cannot_be_sent_is_named(self) -> None:
        self.write({
            "p/pyproject.toml": "",
            "elsewhere/other.py": "def g(x): return x\n",
            "p/s.py": """
                import sys, threading
                sys.path.append("../elsewhere")
                import shoal, other
                def nested():
                    def inner(x): return x
                    return inner
                p = shoal.Pool("local")
                for what in ((nested(), 1), (lambda x: x, 1), (other.g, 1), (print, threading.Lock()), (3,)):
                    try:
                        p.submit(*what)
                    except shoal.ShipError as e:
                        print(e.message.replace("\\n", " "), "|", e.hint)
                    else:
                        print("sent")
            """,
        })  # fmt: skip
        lines = self.python("s.py", without=True, cwd="p").stdout.splitlines()
        self.assertRegex(lines[0], "^cannot send nested.<locals>.inner: .*local object.* | define it at the top level")
        self.assertRegex(lines[1], "^cannot send the lambda on line 9 of .*s.py: .* install cloudpickle")
        self.assertRegex(lines[2], "^cannot send other.g: its module .*elsewhere/other.py is neither below the project .*/p nor installed | say where")
        self.assertRegex(lines[3], "^cannot send the arguments of print: cannot pickle '_thread.lock' object")
        self.assertRegex(lines[4], "^cannot send 3: it is no function")
        self.assertEqual(len(lines), 5)

    def test_a_broken_module_says_so_there(self) -> None:
        self.write({"broken.py": "def f(:\n", "s.py": """
            import shoal
            def f():
                import broken
            if __name__ == "__main__":
                e = shoal.Pool("local").submit(f).exception()
                print(type(e).__name__, "broken.py" in str(e.__cause__))
        """})  # fmt: skip
        self.check(self.python("s.py"), "SyntaxError True\n")


class Archives(unittest.TestCase):
    def names(self, archive: _ship.Archive) -> List[str]:
        with zipfile.ZipFile(BytesIO(archive.data)) as z:
            return z.namelist()

    def test_content_is_the_name(self) -> None:
        one, two = (_ship.Parcel(_ship.Shipper(HERE)) for _ in range(2))
        for p in (one, two):
            p.blobs([(project.add, (1,), {})])
        self.assertEqual(one.archive(), two.archive())
        self.assertIn("tests/project.py", self.names(one.archive()))
        self.assertIn("shoal/_worker.py", self.names(one.archive()))
        name = one.archive().name
        blobs = one.blobs([(project.add, (2,), {})])
        self.assertEqual(one.archive().name, name, "arguments are no part of it")
        one.blobs([(project.double, (2,), {})])
        self.assertNotEqual(one.archive().name, name)
        key, function, args, kwargs = pickle.loads(blobs[0])
        self.assertEqual((function, args, kwargs), (None, (2,), {}))
        self.assertIn(f"functions/{key}.pkl", self.names(one.archive()))

    def test_imports(self) -> None:
        with tempfile.TemporaryDirectory() as top:
            path = os.path.join(top, "m.py")
            with open(path, "w") as f:
                f.write("import a.b as c\nfrom . import d\nfrom ..e import f\ndef g():\n    from h import *\n    import i, j.k\ntry:\n    import l\nexcept ImportError:\n    pass\n")
            self.assertEqual(_ship._imports(path, "x.y"), {"a", "a.b", "x", "x.y", "x.y.d", "x.e", "x.e.f", "h", "i", "j", "j.k", "l"})
            with open(path, "wb") as f:
                f.write(b"\xff\x00(")
            self.assertEqual(_ship._imports(path, ""), set())

    def test_roots(self) -> None:
        self.assertTrue(_ship.installed(os.__file__))
        self.assertFalse(_ship.installed(project.__file__))
        with self.assertRaises(shoal.ShipError):
            shoal.Pool("local", project="/no/such/dir").submit(project.add, 1)


if __name__ == "__main__":
    unittest.main()
