"""How the server is found, and what is done when it does not answer."""

import json
import os
import shutil
import sys
import tempfile
import unittest
from typing import Any, Dict
from unittest import mock

import shoal
from shoal import _client, errors
from shoal._client import Client, Target, find_target

from .fakeserver import TOKEN, World, serving


class Finding(unittest.TestCase):
    def setUp(self) -> None:
        self.top = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.top)

    def find(self, env: Dict[str, str], **given: Any) -> Target:
        return find_target(env={"HOME": self.top, **env}, machine_socket=self.top + "/machine.sock", data_dir=self.top + "/data", **given)

    def stored(self, value: Any) -> None:
        os.makedirs(self.top + "/.config/shoal", exist_ok=True)
        with open(self.top + "/.config/shoal/logins.json", "w") as f:
            f.write(value if isinstance(value, str) else json.dumps(value))

    def test_in_the_order_of_the_command_line(self) -> None:
        with self.assertRaises(shoal.UnavailableError) as caught:
            self.find({})
        self.assertIn("shoal login", caught.exception.hint)
        os.makedirs(self.top + "/data")
        open(self.top + "/data/shoal.sock", "w").close()
        self.assertEqual(self.find({}), Target(socket=self.top + "/data/shoal.sock"))
        self.assertEqual(self.find({"SHOAL_TOKEN": " t\n"}), Target("http://127.0.0.1:7420", "t"))
        self.stored({"current": "https://pool", "servers": {"https://pool": {"user": "a", "token": "stored", "expires": "2999-01-01T00:00:00.123456789Z"}}})
        self.assertEqual(self.find({}), Target("https://pool", "stored"))
        open(self.top + "/machine.sock", "w").close()
        self.assertEqual(self.find({}), Target(socket=self.top + "/machine.sock"))
        self.assertEqual(self.find({"SHOAL_DATA": "/d"}), Target(socket="/d/shoal.sock"))
        with self.assertRaises(shoal.InvalidError):
            self.find({"SHOAL_DATA": "/d", "SHOAL_TOKEN": "t"})
        self.assertEqual(self.find({"SHOAL_SERVER": "https://pool/"}), Target("https://pool", "stored"))
        self.assertEqual(self.find({"SHOAL_SERVER": "x"}, server="y", token="t"), Target("http://y:7420", "t"))

    def test_what_is_stored(self) -> None:
        self.stored({"current": "http://p:1", "servers": {"http://p:1": {"token": "t", "expires": "2020-01-01T00:00:00Z"}}})
        with self.assertRaises(shoal.UnauthenticatedError):
            self.find({})
        for broken in ("{", "[]", '{"servers": 3}'):
            self.stored(broken)
            with self.assertRaises(shoal.InvalidError):
                self.find({})
        with open(self.top + "/token", "w") as f:
            f.write("word\n")
        self.assertEqual(self.find({}, server="http://p:1", token_file=self.top + "/token").token, "word")
        for text in ("", "two words"):
            with open(self.top + "/token", "w") as f:
                f.write(text)
            with self.assertRaises(shoal.InvalidError):
                self.find({}, token_file=self.top + "/token")

    def test_addresses(self) -> None:
        for bad in ("ftp://x", "http://", "http://a@b", "http://x?y", "http://x:port"):
            with self.assertRaises(shoal.InvalidError, msg=bad):
                _client.server_url(bad)
        self.assertEqual(_client.server_url("http://[::1]"), "http://[::1]:7420")


class Asking(unittest.TestCase):
    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)
        server = serving(self.world)
        self.url = server.__enter__()
        self.addCleanup(server.__exit__, None, None, None)
        self.client = Client(Target(self.url, TOKEN))
        self.addCleanup(self.client.close)

    def test_problems_become_exceptions(self) -> None:
        with self.assertRaises(shoal.NotFoundError) as caught:
            self.client.get("/jobs/7")
        self.assertIn("no job 7", str(caught.exception))
        with self.assertRaises(shoal.UnauthenticatedError) as unknown:
            Client(Target(self.url, "wrong")).get("/whoami")
        self.assertEqual(str(unknown.exception), "who is asking?\nhint: log in with `shoal login`")
        self.world.faults = [418]
        with self.assertRaises(shoal.InvalidError) as proxy:
            self.client.get("/whoami")
        self.assertEqual(proxy.exception.hint, "is it a Shoal server?")
        e = errors.from_problem({"kind": "invalid", "detail": "the job has mistakes", "mistakes": [{"path": "array", "msg": "cannot read it", "hint": "write 1-3"}]})
        self.assertEqual(str(e), "the job has mistakes\n  array: cannot read it (write 1-3)")
        self.assertIsInstance(errors.from_problem({"kind": "new", "title": "?"}), shoal.InternalError)

    def test_a_server_that_is_away_for_a_moment(self) -> None:
        self.client.get("/whoami")
        self.world.faults = [503, 502, 0]
        self.assertEqual(self.client.get("/whoami")["user"], "alice")
        # A submission whose answer was lost is the same job when it is sent again.
        self.world.faults = [0, 503]
        pool = shoal.Pool("lab", server=self.url, token=TOKEN)
        pool._backend.client._reached = True  # type: ignore[attr-defined]
        self.assertEqual(pool.run("true").result(), 0)
        self.assertEqual(len(self.world.local.jobs), 1)
        pool.close()

    def test_one_that_was_never_there(self) -> None:
        with self.assertRaises(shoal.UnavailableError) as caught, mock.patch.object(_client.time, "sleep") as waited:
            Client(Target("http://127.0.0.1:9")).get("/whoami")
        self.assertIn("SHOAL_SERVER", caught.exception.hint)
        waited.assert_not_called()

    def test_what_cannot_be_repeated_is_sent_once(self) -> None:
        pool = shoal.Pool("lab", server=self.url, token=TOKEN)
        self.addCleanup(pool.close)
        job = pool.run("exit 3").wait()
        self.world.faults = [0]
        with self.assertRaises(shoal.UnavailableError) as caught:
            job.retry()
        self.assertEqual(self.world.requests.count("POST /jobs/1/retry"), 1)
        self.assertIn("may have happened", caught.exception.hint)

    def test_output_over_breaks(self) -> None:
        text = "".join(f"line {i}\n" for i in range(2000))
        pool = shoal.Pool("lab", server=self.url, token=TOKEN)
        self.addCleanup(pool.close)
        j = pool.run(["printf", "%s", text])
        self.assertEqual(j.wait().logs(), text)
        pieces = pool.run("for i in 1 2 3 4; do echo $i; sleep 0.2; done").follow()
        found = next(pieces)
        self.world.faults = [0]
        self.assertEqual(found + "".join(pieces), "1\n2\n3\n4\n")

    def test_a_unix_socket_needs_no_token(self) -> None:
        path = os.path.join(self.world.top, "s.sock")
        with serving(self.world, path):
            client = Client(Target(socket=path))
            self.assertEqual(client.get("/whoami")["user"], "alice")
            self.assertEqual(client.get("/pools/lab")["name"], "lab")
            client.close()
        with self.assertRaises(shoal.UnavailableError):
            Client(Target(socket=path)).get("/whoami")

    def test_threads_and_forks_have_their_own_connections(self) -> None:
        self.client.get("/whoami")
        pid = os.fork()
        if pid == 0:
            try:
                ok = self.client.get("/whoami")["user"] == "alice"
            except BaseException:
                ok = False
            os._exit(0 if ok else 1)
        self.assertEqual(self.client.get("/whoami")["user"], "alice")
        self.assertEqual(os.waitpid(pid, 0)[1], 0)


if __name__ == "__main__":
    sys.exit(unittest.main())
