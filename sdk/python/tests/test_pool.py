"""The same code on processes of this host, in this process, and on a server."""

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import unittest
import warnings
from typing import Any, Iterator, List
from unittest import mock

import shoal
from shoal import _map, _pack
from shoal._client import Target

from . import project
from .fakeserver import TOKEN, World, serving

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Same:
    """What holds in every pool. Its subclasses say which."""

    pool: shoal.Pool

    def test_map(self: Any) -> None:
        m = self.pool.map(project.add, range(4), [10, 20, 30], kwargs={"z": 1})
        self.assertEqual(list(m), [11, 22, 33])
        self.assertEqual(list(m), [11, 22, 33], "a second reading")
        self.assertEqual(len(m), 3)
        self.assertEqual((m.failed, m.complete, m.done()), ([], True, True))
        self.assertEqual(m.status(), {"succeeded": 3})
        self.assertEqual([next(m), next(m)], [11, 22])
        self.assertEqual(m.result(1), 22)
        self.assertEqual(sorted(self.pool.map(project.add, range(3), ordered=False)), [100, 101, 102])
        self.assertEqual(list(self.pool.map(project.add, [])), [])
        self.assertEqual(list(self.pool.starmap(project.add, [(1, 2), (3, 4, 5)])), [3, 12])

    def test_errors(self: Any) -> None:
        m = self.pool.map(project.fussy, range(4))
        self.assertEqual(next(m), 0)
        with self.assertRaises(project.Odd) as caught:
            next(m)
        self.assertEqual(caught.exception.value, 1)
        self.assertEqual(next(m), 2, "the next call goes on")
        m.wait()
        self.assertEqual([(f.input, type(f.error)) for f in m.failed], [(1, project.Odd), (3, project.Odd)])
        m.errors = "skip"
        self.assertEqual(list(m), [0, 2])
        m.errors = "return"
        self.assertEqual([type(r) for r in m], [int, project.Odd, int, project.Odd])
        with self.assertRaises(project.Odd):
            self.pool.for_each(project.fussy, [2, 3])
        with self.assertRaises(shoal.InvalidError):
            self.pool.map(project.fussy, [1], errors="ignore")

    def test_submit(self: Any) -> None:
        jobs = [self.pool.submit(project.add, i, y=i) for i in range(2)]
        self.assertEqual([j.result() for j in jobs], [0, 2])
        self.assertIsNone(jobs[0].exception())
        with self.pool.batch():
            many = [self.pool.submit(project.double, i) for i in range(3)] + [self.pool.submit(project.add, 1)]
            with self.assertRaises(shoal.InvalidError):
                many[0].id
        self.assertEqual(len({j.id.partition("/")[0] for j in many}), 1, "one array")
        done = list(shoal.as_completed(many))
        self.assertEqual(sorted(j.result() for j in done), [0, 2, 4, 101])
        self.assertEqual(self.pool.submit(project.yields, 3).result(), [0, 1, 2])
        self.assertEqual(self.pool.submit(project.later, 3).result(), 4)

    def test_commands(self: Any) -> None:
        j = self.pool.run('echo "$A $SHOAL_ARRAY_INDEX"; exit $SHOAL_ARRAY_INDEX', array=range(3), env={"A": 1}, name="three")
        j.wait()
        self.assertEqual((j.status().state, j.status().counts), ("failed", {"succeeded": 1, "failed": 2}))
        self.assertEqual(j[1].logs(), "1 1\n")
        self.assertEqual(j.logs(task=2), "1 2\n")
        with self.assertRaises(shoal.InvalidError):
            j.logs()
        e = j.exception()
        self.assertIsInstance(e, shoal.TaskError)
        self.assertEqual((e.exit_code, e.index), (1, 1))
        sweep = self.pool.run("echo {lr} $PARAM_DEPTH ${HOME:+home}", items=shoal.grid(lr=[0.1, 0.2], depth=[3]))
        self.assertEqual([t.logs() for t in sweep.wait()], ["0.1 3 home\n", "0.2 3 home\n"])
        self.assertEqual(self.pool.run(["echo", "a  b"]).result(), 0)
        with self.assertRaisesRegex(shoal.InvalidError, "run has no memory") as caught:
            self.pool.run("true", memory="1GiB")
        self.assertIn("options(memory=...)", caught.exception.hint)
        self.assertEqual("".join(self.pool.run("echo one; echo two").follow()), "one\ntwo\n")

    def test_cancel(self: Any) -> None:
        slow = self.pool.options(cpus=1).map(project.sleeps, [60, 0, 60], max_running=1, errors="return")
        slow.job(2).cancel()
        slow.job(0).cancel()
        found = slow.results()
        self.assertEqual([getattr(r, "state", r) for r in found], ["cancelled", 0, "cancelled"])

    def test_after(self: Any) -> None:
        first = self.pool.run("exit 3")
        bad, good, third = (self.pool.run("echo ran", after=a) for a in (first, f"{first.id}:failed", [f"{first.id}:any"]))
        self.assertEqual([bad.wait().state, good.wait().state, third.wait().state], ["cancelled", "succeeded", "succeeded"])
        self.assertIn(f"job {first.id}", bad.status().reason)

    def test_async(self: Any) -> None:
        async def all_() -> Any:
            one = await self.pool.submit(project.add, 1)
            return one, [r async for r in self.pool.amap(project.add, range(2))]

        self.assertEqual(asyncio.run(all_()), (101, [100, 101]))

    def test_streaming(self: Any) -> None:
        taken = 0

        def inputs() -> Iterator[int]:
            nonlocal taken
            for i in range(18):
                taken += 1
                yield i

        with mock.patch.object(_map, "CHUNK", 4), mock.patch.object(_map, "WINDOW", 8):
            m = self.pool.map(project.add, inputs(), max_running=2)
            self.assertLessEqual(taken, 13)
            with self.assertRaises(TypeError):
                len(m)
            self.assertEqual(list(m), list(range(100, 118)))
            self.assertEqual((len(m), len(m.jobs())), (18, 5))
            self.assertEqual(m.job(9).result(), 109)

    def test_retry(self: Any) -> None:
        with tempfile.TemporaryDirectory() as top:
            path = os.path.join(top, "tries")
            m = self.pool.map(project.fails_until, [path], kwargs={"times": 2}, errors="return")
            self.assertEqual(str(next(iter(m))), "try 1")
            m.retry()
            self.assertEqual(str(list(m)[0]), "try 2")
            self.assertEqual(list(m.retry()), [3])
            self.assertEqual(list(self.pool.map(project.fails_until, [path + "2"], kwargs={"times": 2}, retries=2)), [3])

    def test_max_fails(self: Any) -> None:
        m = self.pool.map(project.fussy, [1] * 8, max_running=1, max_fails=2, errors="return")
        found = list(m.wait())
        self.assertEqual(sum(isinstance(r, project.Odd) for r in found), 2)
        self.assertTrue(all(isinstance(r, project.Odd) or r.state == "cancelled" for r in found))

    def test_shows_itself(self: Any) -> None:
        m = self.pool.map(project.add, range(2), name="shown").wait()
        self.assertIn("2 succeeded", m._repr_html_())
        self.assertIn("1 succeeded", m.job(0)._repr_html_())
        self.assertIn("shown", self.pool._repr_html_())
        self.assertIn("shown: 2 succeeded", repr(m))


class InProcesses(Same, unittest.TestCase):
    """Pool("local")."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.pool = shoal.Pool("local", workers=4, project=HERE)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.pool.close()
        assert not os.path.exists(cls.pool._backend.directory)  # type: ignore[attr-defined]

    def test_the_remote_traceback_is_the_cause(self) -> None:
        e = self.pool.submit(project.fussy, 1).exception()
        assert isinstance(e, project.Odd) and isinstance(e.__cause__, shoal.RemoteTraceback)
        self.assertIn('raise Odd("odd", x)', e.__cause__.text)
        self.assertIn(project.__file__, e.__cause__.text)
        self.assertNotIn("_worker", e.__cause__.text)

    def test_what_cannot_be_rebuilt(self) -> None:
        e = self.pool.submit(project.stubborn, 1).exception()
        assert isinstance(e, shoal.RemoteError)
        self.assertEqual((e.type_name, e.text), ("tests.project.Stubborn", "1 and 2"))
        self.assertIn("raise Stubborn", e.traceback)
        self.assertIn("before", e.log)
        e = self.pool.submit(project.leaves, 3).exception()
        assert isinstance(e, shoal.RemoteError)
        self.assertEqual((e.type_name, e.exit_code), ("builtins.SystemExit", 3))
        e = self.pool.submit(project.lock, 3).exception()
        self.assertRegex(str(e), "result cannot be sent back: a _thread.lock cannot be pickled")

    def test_a_task_without_a_result(self) -> None:
        e = self.pool.submit(project.dies, 1).exception()
        assert isinstance(e, shoal.TaskError)
        self.assertEqual((e.cause, e.exit_code), ("signal", 137))
        self.assertIn("about to die", str(e))
        e = self.pool.options(time=0.4).submit(project.sleeps, 60).exception()
        assert isinstance(e, shoal.TaskError)
        self.assertEqual((e.state, e.cause), ("timedout", "timeLimit"))
        m = self.pool.map(project.sleeps, [60] * 9)
        with self.assertRaises(shoal.WaitTimeout):
            m.wait(timeout=0.2)
        m.cancel()
        self.assertEqual(m.wait().status(), {"cancelled": 9})

    def test_large_arguments_go_to_a_file(self) -> None:
        big = os.urandom(1 << 20)
        m = self.pool.map(project.size, [big, b"x"])
        self.assertEqual(list(m), [1 << 20, 1])
        self.assertIn("SHOALPY_CALLS", m.jobs()[0].spec["env"])
        m.delete()
        self.assertFalse(os.path.exists(m.jobs()[0].spec["env"]["SHOALPY_CALLS"]))

    def test_checkpoints(self) -> None:
        p = self.pool.options(retries=1)
        self.assertEqual(p.submit(project.Counter(), 5).result(), [[0, 1, 2, 3, 4], 2])
        self.assertEqual(p.submit(project.saves).result(), [3, 2])
        for limit in (4, 40, 400):
            job = p.options(time=limit).submit(project.naps, 600)
            self.assertEqual(job.spec["signal"], f"USR1@{min(limit // 2, 60)}s")
            job.wait()
            if job.exception() is None:
                break  # else it was told to go before its Python had begun, on a host with much to do
        self.assertEqual(job.result(), True)

    def test_what_is_imported_late_goes_along(self) -> None:
        self.assertEqual(self.pool.submit(project.imports_late).result(), 42)

    def test_remote(self) -> None:
        self.assertEqual((project.shout("a"), project.shout.local("b")), ("A", "B"))
        self.assertEqual(project.shout.options(pool=self.pool, cpus=2).remote("c").result(), "C")
        self.assertEqual(list(project.shout.options(pool=self.pool).map(["d"])), ["D"])
        self.assertEqual(list(self.pool.map(project.shout, ["e"])), ["E"])

    def test_files(self) -> None:
        with tempfile.TemporaryDirectory() as top:
            j = self.pool.run('echo 42 > "$SHOAL_OUTPUT_MODEL/answer"', outputs={"model": os.path.join(top, "out")}).wait()
            self.assertEqual([(f.output, f.path, f.size) for f in j.files()], [("model", "answer", 3)])
            self.assertEqual(j.read("answer"), b"42\n")
            self.assertEqual(j.save(os.path.join(top, "copy")), [os.path.realpath(os.path.join(top, "copy", "answer"))])


class InThisProcess(Same, unittest.TestCase):
    """Pool("debug")."""

    def setUp(self) -> None:
        self.pool = shoal.Pool("debug")
        self.addCleanup(self.pool.close)

    def test_it_is_the_very_process(self) -> None:
        seen: List[int] = []
        m = self.pool.map(lambda x: seen.append(x), range(3))
        self.assertEqual(seen, [], "nothing runs before somebody asks")
        next(m)
        self.assertEqual(seen, [0])
        self.assertEqual(self.pool.submit(os.getpid).result(), os.getpid())
        try:
            self.pool.submit(lambda: 1 // 0).result()
        except ZeroDivisionError as e:
            self.assertEqual(traceback.extract_tb(e.__traceback__)[-1].name, "<lambda>")
        else:
            self.fail("nothing was raised")

    def test_ctrl_c_leaves_the_task_waiting(self) -> None:
        asked: List[int] = []

        def impatient() -> int:
            asked.append(1)
            if len(asked) == 1:
                raise KeyboardInterrupt
            return 7

        j = self.pool.submit(impatient)
        with self.assertRaises(KeyboardInterrupt):
            j.result()
        self.assertEqual(j.result(), 7)


class OnAServer(Same, unittest.TestCase):
    """Pool("lab") from elsewhere: payloads within jobs, results through the API."""

    test_streaming = test_max_fails = test_after = None  # no more is shown here than with processes

    @classmethod
    def setUpClass(cls) -> None:
        cls.world = World()
        cls.stop = serving(cls.world)
        cls.url = cls.stop.__enter__()
        cls.cache = tempfile.mkdtemp(prefix="shoal-cache-")
        cls.env = mock.patch.dict(os.environ, {"XDG_CACHE_HOME": cls.cache, "SHOAL_SERVER": cls.url, "SHOAL_TOKEN": TOKEN})
        cls.env.start()
        cls.pool = shoal.Pool("lab", project=HERE, python=sys.executable)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.env.stop()
        cls.stop.__exit__(None, None, None)
        cls.world.close()
        shutil.rmtree(cls.cache)

    def again(self, **options: Any) -> shoal.Pool:
        """The pool as another process sees it."""
        return shoal.Pool("lab", project=HERE, python=sys.executable, **options)

    def test_where_results_are(self) -> None:
        self.assertEqual(self.pool._backend.place(), (f"{self.world.share}/home/alice/.shoal/results", False))

    def test_named_maps(self) -> None:
        m = self.pool.map(project.fussy, range(3), name="found-again", errors="return")
        m.wait()
        jobs = len(self.world.local.jobs)
        other = shoal.Map.open("found-again", self.again(), errors="skip")
        self.assertEqual((list(other), other.complete, len(other)), ([0, 2], True, 3))
        again = self.again().map(project.fussy, range(3), name="found-again", errors="skip")
        self.assertEqual(list(again), [0, 2])
        self.assertEqual(len(self.world.local.jobs), jobs, "nothing was sent anew")
        with self.assertRaises(shoal.ConflictError) as caught:
            self.again().map(project.fussy, range(4), name="found-again")
        self.assertIn("replace=True", caught.exception.hint)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self.again().map(project.double, range(3), name="found-again")
        self.assertIn("other code", str(said[0].message))
        fresh = self.again().map(project.double, range(3), name="found-again", replace=True)
        self.assertEqual(list(fresh), [0, 2, 4])
        self.assertEqual(list(shoal.Map.open("found-again", self.again())), [0, 2, 4])
        with self.assertRaises(shoal.NotFoundError):
            shoal.Map.open("never-made", self.pool)

    def test_a_map_whose_process_ended_goes_on(self) -> None:
        """A kernel that dies in the middle of sending, and the same cell run again."""
        with mock.patch.object(_map, "CHUNK", 3):
            def interrupted() -> Iterator[int]:
                yield from range(7)
                raise KeyboardInterrupt

            with self.assertRaises(KeyboardInterrupt):
                self.pool.map(project.add, interrupted(), name="halfway")
            found = shoal.Map.open("halfway", self.again())
            self.assertFalse(found.complete)
            self.assertEqual(list(found), list(range(100, 106)), "what was sent")
            m = self.again().map(project.add, range(10), name="halfway")
            self.assertEqual(list(m), list(range(100, 110)))
            self.assertEqual(list(shoal.Map.open("halfway", self.again())), list(range(100, 110)))
            self.assertEqual(len([j for j in self.world.local.jobs.values() if j.spec.get("name") == "halfway"]), 4)

    CELL = """
import os, shoal, warnings
warnings.simplefilter("error")
class Settings:
    def __init__(self, x): self.x = x
def work(settings): return settings.x + 1
p = shoal.Pool("lab", python=os.environ["PYTHON"], project=".")
print(list(p.map(work, [Settings(1), Settings(2)], name="cell")))
"""

    def test_a_notebook_s_cell_after_a_restart(self) -> None:
        """A kernel gives the file of a cell another name each time: neither code nor inputs have changed by that."""
        before = len(self.world.local.jobs)
        for i in range(2):
            with tempfile.TemporaryDirectory() as top:
                env = dict(os.environ, PYTHONPATH=HERE, PYTHON=sys.executable)
                run = f"exec(compile({self.CELL!r}, '/tmp/ipykernel_{i}/1.py', 'exec'))"
                done = subprocess.run([sys.executable, "-"], input=run, capture_output=True, text=True, env=env, cwd=top)
            self.assertEqual((done.stdout, done.stderr), ("[2, 3]\n", ""))
        self.assertLessEqual(len(self.world.local.jobs), before + 4, "the look at the image, its code twice, and one map")

    def test_results_of_others_are_not_read(self) -> None:
        self.pool.map(project.add, range(2), name="hers").wait()
        with self.assertRaises(shoal.DeniedError):
            shoal.Map.open("hers", self.again(user="bob"))
        self.assertEqual(list(shoal.Map.open("hers", self.again(user="bob"), trust=True)), [100, 101])

    def test_damaged_results(self) -> None:
        m = self.pool.map(project.add, range(2), name="damaged", errors="return").wait()
        path = os.path.join(self.world.share, "home/alice/.shoal/results", m.jobs()[0].id, "0", "result.pkl")
        with open(path, "r+b") as f:
            f.seek(-1, os.SEEK_END)
            f.write(b"!")
        self.assertIsInstance(list(m)[0], shoal.ResultError)
        self.assertIn("checksum", str(list(m)[0]))

    def test_another_python_on_the_machines(self) -> None:
        other = f"3.{sys.version_info[1] + 1}"
        with tempfile.TemporaryDirectory() as top:
            python = os.path.join(top, "python3")
            with open(python, "w") as f:
                f.write(f'#!/bin/sh\necho \'{{"python": "{other}", "version": "{other}.0", "packages": {{}}}}\'\n')
            os.chmod(python, 0o755)
            before = len(self.world.local.jobs)
            p = shoal.Pool("lab", python=python, project=HERE)
            with self.assertRaises(shoal.VersionError) as caught:
                p.map(project.add, [1])
            self.assertRegex(str(caught.exception), f"^cannot send functions to pool lab: .* there is Python {other}, and here is Python {_pack.PYTHON}")
            self.assertEqual(len(self.world.local.jobs), before + 1, "only the look was sent")
            with self.assertRaises(shoal.InvalidError) as none:
                shoal.Pool("lab", python="/no/such/python", project=HERE).check()
            self.assertIn("/no/such/python", str(none.exception))
            # Whoever leaves the look out hears of it from the task.
            with mock.patch.object(_pack, "PYTHON", other):
                e = shoal.Pool("lab", python=sys.executable, project=HERE, check=False).submit(project.add, 1).exception()
            self.assertIsInstance(e, shoal.VersionError)

    def test_jobs_are_found(self) -> None:
        j = self.pool.submit(project.add, 1)
        self.assertEqual(self.again().job(j.id).result(), 101)
        with self.assertRaises(shoal.NotFoundError):
            self.pool.job(99999)
        with self.assertRaises(shoal.NotFoundError):
            shoal.Pool("elsewhere").run("true")

    def test_default_pool(self) -> None:
        self.assertEqual(shoal.Pool(python=sys.executable, project=HERE).submit(project.add, 1).result(), 101)


class InAMachine(unittest.TestCase):
    """The same from a machine of the pool: payloads and results are files on the share."""

    def test_files(self) -> None:
        world = World("m-1")
        self.addCleanup(world.close)
        with serving(world) as url, tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, {"XDG_CACHE_HOME": cache}):
            p = shoal.Pool("lab", server=url, token=TOKEN, project=HERE, check=False)
            self.assertEqual(p._backend.place(), (f"{world.share}/home/alice/.shoal/results", True))
            self.assertEqual(p._interpreter(), sys.executable, "the machines have this very Python")
            m = p.map(project.size, [os.urandom(1 << 20), b"x"], name="files").wait()
            sent = os.path.join(world.share, "home/alice/.shoal/sent")
            for name in os.listdir(sent):
                self.assertEqual(os.stat(os.path.join(sent, name)).st_mode & 0o077, 0, "they are hers alone")
            self.assertEqual(m.results(), [1 << 20, 1])
            self.assertEqual(list(shoal.Map.open("files", p)), [1 << 20, 1])
            self.assertFalse([r for r in world.requests if "files" in r], "nothing was downloaded")
            self.assertIsInstance(p.submit(project.fussy, 1).exception(), project.Odd)
            results = p._backend.place().results
            p.clean("1h")
            self.assertEqual(len(os.listdir(results)), 2)
            os.utime(os.path.join(results, m.jobs()[0].id), (0, 0))
            p.clean()
            self.assertEqual(len(os.listdir(results)), 1)
            m.delete()
            self.assertEqual([n for n in os.listdir(sent) if not n.endswith(".zip")], [])
            p.close()


class Limits(unittest.TestCase):
    def test_without_a_share(self) -> None:
        world = World(home=False)
        self.addCleanup(world.close)
        with serving(world) as url:
            p = shoal.Pool("lab", server=url, token=TOKEN, project=HERE, check=False)
            self.assertEqual(p.run("echo commands work").result(), 0)
            with self.assertRaises(shoal.InvalidError) as caught:
                p.submit(project.add, 1)
            self.assertIn("results of functions need a share", str(caught.exception))
            p = shoal.Pool("lab", server=url, token=TOKEN, project=HERE, python=sys.executable, shared=world.share + "/x")
            self.assertEqual(p.submit(project.add, 1).result(), 101)
            self.assertEqual(os.listdir(world.share + "/x"), [".shoal-alice"])
            os.utime(os.path.join(world.share, "x", ".shoal-alice", "results", os.listdir(world.share + "/x/.shoal-alice/results")[0]), (0, 0))
            p.clean()
            self.assertEqual(os.listdir(world.share + "/x/.shoal-alice/results"), [])
            with self.assertRaises(shoal.InvalidError):
                shoal.Pool("lab", server=url, token=TOKEN, shared="/elsewhere", check=False, project=HERE).submit(project.add, 1)
            self.assertEqual(list(p.map(project.size, [b"x" * 400_000, b"y" * 500_000, b"z"])), [400_000, 500_000, 1])
            with self.assertRaises(shoal.InvalidError) as caught:
                p.submit(project.size, b"x" * (1 << 20))
            self.assertIn("cannot send the arguments: 1,048,", caught.exception.message)
            self.assertIn("share", caught.exception.hint)

    def test_a_million_inputs_do_not_hold_the_driver_up(self) -> None:
        taken = 0

        def many() -> Iterator[int]:
            nonlocal taken
            for i in range(1_000_000):
                taken += 1
                yield i

        p = shoal.Pool("local", workers=1, project=HERE)
        self.addCleanup(p.close)
        with mock.patch.object(p._backend, "_start"):  # nothing runs: the driver is what is looked at
            m = p.map(project.double, many())
            self.assertLessEqual(taken, _map.WINDOW + 2)
            self.assertEqual(sum(m.status().values()), _map.WINDOW)
            self.assertFalse(m.complete)
            begun = time.process_time()
            m.cancel()
            self.assertLess(time.process_time() - begun, 30)
            self.assertEqual(m.status(), {"cancelled": _map.WINDOW})

    def test_a_pool_that_nobody_closes_leaves_nothing(self) -> None:
        directory = shoal.Pool("local")._backend.directory  # type: ignore[attr-defined]
        gc.collect()
        self.assertFalse(os.path.exists(directory))

    def test_words_of_people(self) -> None:
        self.assertEqual(Target("a").server, "a")
        with self.assertRaises(shoal.InvalidError):
            shoal.Pool("debug", time="soon").run("true")
        with self.assertRaises(shoal.InvalidError):
            shoal.Pool("debug").options(gpu=1)
        with self.assertRaises(shoal.InvalidError):
            shoal.Pool("debug").run("true", items=[{1, 2}])


if __name__ == "__main__":
    unittest.main()
