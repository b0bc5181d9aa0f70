"""What the spawner asks of Shoal and makes of the answers, and the script that runs on machines."""

import asyncio
import importlib.util
import os
import subprocess
import tempfile
import threading
import time
import unittest
from types import SimpleNamespace
from typing import Any

from tests import fakeshoal

JUPYTERHUB = importlib.util.find_spec("jupyterhub")


@unittest.skipUnless(JUPYTERHUB, "jupyterhub is not installed: scripts/setup test")
class Spawner(unittest.TestCase):
    def setUp(self) -> None:
        self.world = fakeshoal.World()
        self.world.run = False
        context = fakeshoal.serving(self.world)
        self.at = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.token = tempfile.NamedTemporaryFile("w", suffix=".token")
        self.addCleanup(self.token.close)
        self.token.write(fakeshoal.TOKEN)
        self.token.flush()

    def spawner(self, **settings: Any) -> Any:
        from shoal_jupyterhub import ShoalSpawner
        from traitlets.config import Config

        config = Config({"Shoal": {"server": settings.pop("server", self.at), "token_file": self.token.name}, "ShoalSpawner": settings})
        user = SimpleNamespace(name="alice", url="/user/alice/", escaped_name="alice")
        hub = SimpleNamespace(public_host="", api_url="http://127.0.0.1:1/hub/api", base_url="/hub/")
        made = ShoalSpawner(user=user, hub=hub, config=config, internal_ssl=False)
        made.api_token, made.oauth_client_id, made.user_options = "secret", "x", {}
        made._server = SimpleNamespace(base_url="/user/alice/")
        return made

    def run_(self, coroutine: Any) -> Any:
        return asyncio.run(coroutine)

    def pools(self) -> None:
        jupyter = [{"name": "jupyter", "protocol": "http"}]
        self.world.pools = [
            {"name": "big", "endpoints": jupyter, "machine": {"cpus": 16, "memory": "64GiB", "gpus": 1}},
            {"name": "gone", "endpoints": jupyter, "deleting": True},
            {"name": "lab", "endpoints": jupyter, "machine": {"cpus": 2, "memory": "4GiB"}, "default": True},
            {"name": "batch", "machine": {"cpus": 64}},
        ]

    def test_the_form_asks_where_there_is_a_choice(self) -> None:
        self.assertEqual(self.run_(self.spawner().choice()), "")
        self.pools()
        form = self.run_(self.spawner().choice())
        self.assertIn('value="lab" checked', form)
        self.assertIn("16 CPUs, 64GiB, 1 GPU", form)
        self.assertNotIn("batch", form)
        self.assertNotIn("gone", form)
        self.assertEqual(self.run_(self.spawner(pool="big").choice()), "")
        self.world.pools[0]["name"] = '"><script>'
        self.assertNotIn("<script>", self.run_(self.spawner().choice()))

    def test_where_it_is_started(self) -> None:
        from shoal_jupyterhub import ShoalError

        self.pools()
        for options, want in (({}, "lab"), ({"pool": "big"}, "big"), ({"cpus": 4}, "big"), ({"gpus": "1"}, "big"), ({"memory": "2GiB"}, "lab"),
                              ({"pool": "batch"}, "is no pool for notebooks"), ({"pool": ["x"]}, "is no pool for notebooks"), ({"cpus": 99}, "lab: 2 CPUs"), ({"cpus": "many"}, "cannot read")):  # fmt: skip
            s = self.spawner()
            s.user_options = options
            try:
                got = self.run_(s._place())["name"]
            except ShoalError as e:
                got = str(e)
                self.assertEqual(e.jupyterhub_message, got)
            self.assertIn(want, got, options)
        self.assertEqual(self.spawner().options_from_form({"pool": ["big "], "cpus": [""], "other": ["x"]}), {"pool": "big"})
        self.world.pools = []
        with self.assertRaisesRegex(ShoalError, "no pool has an endpoint named jupyter"):
            self.run_(self.spawner()._place())

    def test_a_server_that_the_hub_knows_nothing_of_is_ended_first(self) -> None:
        stranger = self.world.open({"user": "alice", "pool": "lab", "endpoint": "jupyter", "env": {}, "command": "x"})[1]
        s = self.spawner()
        self.assertEqual(self.run_(s.start()), ("127.0.0.1", 9))
        self.assertEqual(stranger["state"], "ended")
        self.assertEqual(s.get_state(), {"app": "a-2"})
        order = self.world.orders["a-2"]
        self.assertEqual(order["env"]["JUPYTERHUB_API_TOKEN"], "secret")
        self.assertNotIn("JUPYTERHUB_SERVICE_URL", order["env"])
        self.assertNotIn("secret", order["command"])
        self.run_(s.stop())
        self.assertEqual(self.world.apps["a-2"]["state"], "ended")
        self.assertEqual(self.run_(s.poll()), 0)

    def test_running_gone_and_unknown(self) -> None:
        s = self.spawner()
        self.run_(s.start())
        self.assertIsNone(self.run_(s.poll()))
        away = ((502, b"<html>"), (503, {"kind": "unavailable", "detail": "later"}), (404, b"not found, says a proxy"), (401, {"kind": "unauthenticated", "detail": "the token was changed"}))
        for self.world.away in away:
            self.assertIsNone(self.run_(s.poll()), self.world.away)
        self.world.away = None
        self.world.change("a-1", unknown=True)
        self.assertIsNone(self.run_(s.poll()))
        elsewhere = self.spawner(server="http://127.0.0.1:1")
        elsewhere.load_state({"app": "a-1"})
        self.assertIsNone(self.run_(elsewhere.poll()))
        self.world.change("a-1", unknown=False, state="failed", exitCode=137, reason="its machine is gone")
        self.assertEqual(self.run_(s.poll()), 137)
        del self.world.apps["a-1"]
        self.assertEqual(self.run_(s.poll()), 0)

    def test_a_hub_that_comes_back_waits_until_it_is_known(self) -> None:
        s = self.spawner()
        self.run_(s.start())
        back = self.spawner()
        back.load_state(s.get_state())
        back._check_pending = True
        self.world.away = (502, b"")
        began = time.monotonic()
        threading.Timer(1, lambda: setattr(self.world, "away", None)).start()
        self.assertIsNone(self.run_(back.poll()))
        self.assertGreater(time.monotonic() - began, 0.5)
        self.assertEqual(self.run_(back.get_url()), "http://127.0.0.1:9/user/alice/")
        self.assertGreater(back.http_timeout, 10**6)
        with self.assertRaises(Exception):  # the hub would end it, because it did not answer in time
            self.run_(back.stop())
        self.assertEqual(self.world.apps["a-1"]["state"], "running")
        back._check_pending = False
        self.run_(back.stop())
        self.run_(back.start())
        self.assertEqual(back.http_timeout, 30)

    def test_a_start_that_fails_says_why(self) -> None:
        from shoal_jupyterhub import ShoalError

        self.world.hold.set()
        s = self.spawner()

        def fail() -> None:
            while "a-1" not in self.world.apps:
                time.sleep(0.02)
            self.world.change("a-1", state="failed", reason="pool lab cannot grow", log="no room\n")
            self.world.start = lambda *_: None  # type: ignore[method-assign]

        threading.Thread(target=fail).start()
        with self.assertRaisesRegex(ShoalError, "pool lab cannot grow: no room"):
            self.run_(s.start())

    def test_use_without_a_kernel_is_told(self) -> None:
        s = self.spawner()
        self.run_(s.start())
        answers: Any = {"kernels": [], "terminals": [], "status": {"last_activity": "2020-01-02T03:04:05.6Z"}}

        async def fetch(url: str) -> Any:
            return answers[url.rpartition("/")[2]]

        s._fetch = fetch

        def told() -> Any:
            self.world.activities.clear()
            self.run_(s._report(self.world.apps["a-1"]))
            return [said for _, said in self.world.activities]

        self.assertEqual(told(), [{"kernels": 0, "terminals": 0, "lastActivity": "2020-01-02T03:04:05Z"}])
        for answers["status"] in ([], {}, {"last_activity": 7}, None):
            self.assertEqual(told(), [{"kernels": 0, "terminals": 0}])
        answers["kernels"] = {"message": "Forbidden"}  # that is no kernel; nothing is known
        self.assertEqual(told(), [])

    def test_the_token_file(self) -> None:
        from shoal_jupyterhub import ShoalError

        s = self.spawner()
        for text, want in (("", "holds no token"), ("two words", "holds no token")):
            with open(self.token.name, "w") as f:
                f.write(text)
            with self.assertRaisesRegex(ShoalError, want):
                self.run_(s.pools())
        os.truncate(self.token.name, 0)
        with open(self.token.name, "w") as f:
            f.write("wrong")
        with self.assertRaisesRegex(ShoalError, "who is asking"):
            self.run_(s.pools())

    def test_a_failed_start_says_why(self) -> None:
        from shoal_jupyterhub import ShoalError

        e = ShoalError("exhausted", "99% of the budget is spent", "ask an administrator")
        e.reason = "error"  # as the hub does, whose page then has a general sentence
        self.assertIsNone(e.reason)
        self.assertEqual(e.log_message % e.args, "99% of the budget is spent (ask an administrator)")


@unittest.skipUnless(JUPYTERHUB, "jupyterhub is not installed: scripts/setup test")
class Command(unittest.TestCase):
    def setUp(self) -> None:
        top = tempfile.TemporaryDirectory(prefix="shoal-command-")
        self.addCleanup(top.cleanup)
        self.top = top.name
        self.home, self.local = os.path.join(self.top, "a home"), os.path.join(self.top, "local")
        os.mkdir(self.home)
        os.mkdir(self.local)
        self.own = os.path.join(self.local, f"jupyter-{os.getuid()}")

    def run_(self, *words: str, code: int = 0, local: bool = True) -> "subprocess.CompletedProcess[str]":
        from shoal_jupyterhub._command import command

        env = {"PATH": "/usr/bin:/bin", "HOME": self.home, "SHOAL_LOCAL": self.local, "SHOAL_PORT": "4321", "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/"}
        done = subprocess.run(["/bin/sh", "-c", command(words, local)], env=env, capture_output=True, text=True, cwd="/")
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def test_words_are_not_read_by_the_shell(self) -> None:
        self.assertEqual(self.run_("echo", "$HOME `id`", "a 'b' \"c\"").stdout, "$HOME `id` a 'b' \"c\"\n")
        self.assertIn("is not on this machine: install", self.run_("no-such-program", code=127).stderr)

    def test_settings_stay_and_databases_go(self) -> None:
        profile = os.path.join(self.home, ".ipython", "profile_default")
        os.makedirs(os.path.join(profile, "startup"))
        for name in ("ipython_config.py", "history.sqlite", "startup/10-mine.py"):
            open(os.path.join(profile, name), "w").close()
        for again in range(2):
            out = self.run_("sh", "-c", "pwd; echo $JUPYTERHUB_SERVICE_URL; echo $JUPYTER_RUNTIME_DIR; ls $IPYTHONDIR/profile_default; ls $IPYTHONDIR/profile_default/startup; cat $JUPYTER_CONFIG_PATH/jupyter_config.json").stdout.splitlines()
            self.assertEqual(out[:3], [self.home, "http://127.0.0.1:4321/user/alice/", os.path.join(self.own, "runtime")])
            self.assertEqual(out[3:7], ["db", "ipython_config.py", "startup", "10-mine.py"])
            self.assertIn(f'"db_file": "{self.own}/nbsignatures.db"', "\n".join(out))
            os.remove(os.path.join(self.own, "ipython", "profile_default", "startup"))
            os.mkdir(os.path.join(self.own, "ipython", "profile_default", "startup"))  # as IPython makes it
            open(os.path.join(self.own, "ipython", "profile_default", "startup", "README"), "w").close()
        self.assertEqual(os.stat(self.own).st_mode & 0o777, 0o700)
        self.assertEqual(self.run_("sh", "-c", "echo [$IPYTHONDIR]", local=False).stdout, "[]\n")

    def test_a_directory_of_somebody_else_is_not_used(self) -> None:
        elsewhere = os.path.join(self.top, "elsewhere")
        os.mkdir(elsewhere)
        os.symlink(elsewhere, self.own)
        got = self.run_("sh", "-c", "echo $IPYTHONDIR").stdout.strip()
        self.assertRegex(got, "^/var/tmp/jupyter-[A-Za-z0-9]{10}/ipython$")
        subprocess.run(["rm", "-r", os.path.dirname(got)], check=True)
        self.assertEqual(os.listdir(elsewhere), [])
        if os.getuid() == 0:
            os.remove(self.own)
            os.mkdir(self.own)
            os.chown(self.own, 12345, 12345)
            got = self.run_("sh", "-c", "echo $IPYTHONDIR").stdout.strip()
            self.assertRegex(got, "^/var/tmp/jupyter-[A-Za-z0-9]{10}/ipython$")
            subprocess.run(["rm", "-r", os.path.dirname(got)], check=True)


if __name__ == "__main__":
    unittest.main()
