"""The header of pickles: what is written is read back, and nothing else is taken for it."""

import os
import random
import tempfile
import unittest

from shoal import _pack


class Pack(unittest.TestCase):
    def setUp(self) -> None:
        self.random = random.Random(20260)

    def body(self) -> bytes:
        return bytes(self.random.randrange(256) for _ in range(self.random.choice([0, 1, 10, 300])))

    def test_what_is_packed_is_unpacked(self) -> None:
        for i in range(300):
            body, extra = self.body(), {"attempt": i, "text": "".join(chr(self.random.randrange(1, 0x2FFF)) for _ in range(i % 7))}
            header, found = _pack.unpack(_pack.pack("value", body, **extra))
            self.assertEqual((found, header["attempt"], header["text"]), (body, i, extra["text"]))
            self.assertEqual((header["python"], header["sdk"]), (_pack.PYTHON, _pack.VERSION))

    def test_no_damage_goes_unseen(self) -> None:
        for _ in range(600):
            body = self.body()
            data = bytearray(_pack.pack("value", body))
            where = self.random.randrange(len(data))
            match = self.random.randrange(3)
            if match == 0:
                data[where] ^= 1 << self.random.randrange(8)
            elif match == 1:
                del data[where:]
            else:
                data.insert(where, self.random.randrange(256))
            try:
                header, found = _pack.unpack(bytes(data))
            except _pack.PackError:
                continue
            # Only what does not matter to the pickle may differ: a letter of the kind or of a version.
            self.assertEqual(found, body)

    def test_strangers_are_refused(self) -> None:
        line = b'{"kind":"value","python":"3.11","sdk":"1","sha256":"","size":%s}\n'
        for data in (b"", b"\x80\x05N.", _pack.MAGIC, _pack.MAGIC + b"[]\n", _pack.MAGIC + b"{}\n", _pack.MAGIC + b"[" * 100_000 + b"\n", _pack.MAGIC + line % b"-1",
                     _pack.MAGIC + line % b"true", _pack.MAGIC + line % b"1e9", _pack.MAGIC + b"x" * (_pack.MAX_HEADER + 1) + b"\n"):  # fmt: skip
            with self.assertRaises(_pack.PackError):
                _pack.unpack(data)
        with self.assertRaises(_pack.PackError):
            _pack.pack("error", b"", traceback="x" * _pack.MAX_HEADER)

    def test_words(self) -> None:
        for _ in range(100):
            body = self.body()
            word = _pack.to_text(body)
            self.assertRegex(word, r"^[0-9a-f]{16}\.[A-Za-z0-9+/=]*$")
            self.assertEqual(_pack.from_text(word), body)
            other = list(word)
            other[self.random.randrange(16)] = "x"
            for bad in ("".join(other), word + "!", word[16:], "é"):
                with self.assertRaises(_pack.PackError):
                    _pack.from_text(bad)

    def test_many_in_a_file(self) -> None:
        with tempfile.TemporaryDirectory() as top:
            path = os.path.join(top, "new", "calls")
            bodies = [self.body() for _ in range(50)]
            _pack.write_whole(path, _pack.pack_many(bodies))
            self.assertEqual([_pack.read_one(path, i) for i in range(50)], bodies)
            for i in (-1, 50):
                with self.assertRaises(_pack.PackError):
                    _pack.read_one(path, i)
            self.assertEqual(os.listdir(os.path.dirname(path)), ["calls"])
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)


if __name__ == "__main__":
    unittest.main()
