"""Raw files: fetched from a server on this machine, verified, and extracted from archives nobody trusts."""

import errno
import gzip
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
import textwrap
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from msam import cli
from msam.datasets import DatasetError, _archive, _download, _http, _verify
from msam.datasets._raw import RawFile

CONTENT = bytes(range(256)) * 40000  # ten blocks
ZIPPED = gzip.compress(CONTENT, compresslevel=1)


def md5(content):
    return "md5:" + hashlib.md5(content).hexdigest()


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; it knows ranges if `ranges`, and breaks an answer off after the next of `breaks` bytes.

    `asked` keeps (path, range) of every request.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.types, self.tags = {}, {}, {}
        self.ranges, self.breaks, self.asked = True, [], []

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, name, wanted = self.server, self.path[1:], self.headers["Range"]
        server.asked.append((name, wanted))
        if name not in server.files:
            return self.send_error(404)
        content, tag = server.files[name], server.tags.get(name)
        known = self.headers["If-Range"]
        start = 0
        if server.ranges and wanted and known in (None, tag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", server.types.get(name, "application/octet-stream"))
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        count = server.breaks.pop(0) if server.breaks else len(content)
        self.wfile.write(content[start : start + count])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("MSAM_DATA", str(tmp_path / "data"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "data"


MODULE = """
from msam.datasets._raw import RawFile

TITLE = ORIGIN = "t"
LICENSE = "its own"
STANDS_FOR = None
CLASSES = ("no", "yes")
KINDS = {"a": "vector"}


def build():
    raise AssertionError
"""


@pytest.fixture
def declare(tmp_path, monkeypatch, data):
    """Write a dataset with raw files, `my_raw.set`."""
    (tmp_path / "my_raw").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    # Bytecode of a module written twice within a second, at the same length, would be taken for the new one.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(*files, consent=""):
        text = f"{MODULE}\nFILES = {files!r}\nCONSENT = {consent!r}\n"
        (tmp_path / "my_raw" / "set.py").write_text(text)
        sys.modules.pop("my_raw.set", None)
        return "my_raw.set"

    yield write
    for name in ("my_raw", "my_raw.set"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(capsys):
    """Run `msam data ...` and return its exit code and the lines it printed and complained."""

    def run(*arguments):
        code = cli.main(["data", *arguments])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return run


def here(data):
    """Paths of all files in the data folder, less the lock."""
    return sorted(
        str(path.relative_to(data))
        for path in data.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    )


# Download


@pytest.mark.parametrize("ranges", [True, False])
def test_files_are_fetched_once_and_verified(server, declare, run, data, ranges):
    server.ranges = ranges
    server.files = {"x": CONTENT, "y.gz": ZIPPED}
    name = declare(
        RawFile("deep/x", (server.url("x"),), sha256(CONTENT)),
        RawFile("y.gz", (server.url("y.gz"),), md5(CONTENT)),  # of the content, not of the gzip file
    )
    code, out, errors = run("get", name)
    assert (code, errors) == (0, [])
    assert "deep/x: 0.0 of 10.2 MB (0%)" in out
    assert "deep/x: 10.2 of 10.2 MB (100%)" in out
    assert "deep/x: complete" in out
    assert (data / "deep" / "x").read_bytes() == CONTENT
    assert here(data) == ["deep/x", "y.gz"]
    assert run("verify", name) == (0, ["ok  deep/x: checksum right", "ok  y.gz: checksum right"], [])
    assert run("get", name) == (0, ["deep/x: there", "y.gz: there"], [])
    assert server.asked == [("x", None), ("y.gz", None)]


def test_a_terminal_has_one_line_that_changes(server, declare, data, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    server.files = {"x": CONTENT}
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert _download.get(declare(RawFile("x", (server.url("x"),)))) == []
    line, last, _ = terminal.getvalue().split("\n")
    assert line.split("\r")[-1].strip() == "x: 10.2 of 10.2 MB (100%)"
    assert last == "x: complete"


def test_a_broken_download_goes_on_where_it_broke(server, declare, run, data):
    server.files, server.tags = {"x": CONTENT}, {"x": '"v1"'}
    server.breaks = [3_000_000, 4_000_000]
    assert run("get", declare(RawFile("x", (server.url("x"),), md5(CONTENT))))[0] == 0
    assert server.asked == [("x", None), ("x", "bytes=3000000-"), ("x", "bytes=7000000-")]
    assert (data / "x").read_bytes() == CONTENT
    assert here(data) == ["x"]


def test_a_later_call_goes_on_too(server, declare, run, data):
    server.files = {"x": CONTENT}
    server.breaks = [3_000_000, 0]
    name = declare(RawFile("x", (server.url("x"),), md5(CONTENT)))
    code, _, errors = run("get", name)
    assert code == 1
    assert "the connection broke after 3,000,000 of 10,240,000 bytes" in errors[0]
    assert here(data) == ["x.part", "x.part.from"]
    assert run("get", name)[0] == 0
    assert server.asked[-1] == ("x", "bytes=3000000-")
    assert (data / "x").read_bytes() == CONTENT
    assert here(data) == ["x"]


def test_a_server_without_ranges_starts_again(server, declare, run, data):
    server.files, server.ranges = {"x": CONTENT}, False
    server.breaks = [3_000_000]
    assert run("get", declare(RawFile("x", (server.url("x"),), md5(CONTENT))))[0] == 0
    assert server.asked == [("x", None), ("x", "bytes=3000000-")]
    assert (data / "x").read_bytes() == CONTENT


def test_a_server_that_always_breaks_is_given_up(server, declare, run):
    server.files, server.ranges = {"x": CONTENT}, False
    server.breaks = [1000] * 50
    code, _, errors = run("get", declare(RawFile("x", (server.url("x"),))))
    assert code == 1
    assert "the connection broke after 1,000 of 10,240,000 bytes" in errors[0]
    assert len(server.asked) == 2


def test_parts_of_two_versions_or_two_addresses_are_never_mixed(server, declare, run, data):
    server.files, server.tags = {"x": b"a" * 900, "y": b"c" * 900}, {"x": '"v1"'}
    server.breaks = [400, 0]
    name = declare(RawFile("x", (server.url("x"),)))
    assert run("get", name)[0] == 1
    server.files["x"], server.tags["x"] = b"b" * 900, '"v2"'
    server.breaks = [500, 0]
    assert run("get", name)[0] == 1
    assert (data / "x.part").read_bytes() == b"b" * 500
    assert run("get", declare(RawFile("x", (server.url("y"),))))[0] == 0
    assert (data / "x").read_bytes() == b"c" * 900


def test_a_part_that_is_complete_or_too_long(server, tmp_path, data):
    server.files = {"x": b"a" * 900}
    part = tmp_path / "x.part"
    for size in (900, 1000):
        part.write_bytes(b"a" * size)
        (tmp_path / "x.part.from").write_text(server.url("x") + "\n")
        _http.fetch(server.url("x"), part, "x")
        assert part.read_bytes() == b"a" * 900
    assert [wanted for _, wanted in server.asked] == ["bytes=900-", "bytes=1000-", None]


def test_the_next_address_is_tried(server, declare, run, data):
    server.files = {"page": b"<html>", "bad": b"bad", "good": CONTENT}
    server.types = {"page": "text/html"}
    urls = tuple(server.url(name) for name in ("none", "page", "bad", "good"))
    assert run("get", declare(RawFile("x", urls, md5(CONTENT))))[0] == 0
    assert (data / "x").read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["none", "page", "bad", "good"]


def test_what_cannot_be_fetched_is_told_with_what_to_do(server, declare, run, data):
    server.files = {"page": b"<html>", "bad": b"bad", "cut.gz": ZIPPED[:5000]}
    server.types = {"page": "text/html"}
    name = declare(
        *(RawFile(path, (server.url(path),)) for path in ("none", "page", "cut.gz")),
        RawFile("bad", (server.url("bad"),), "md5:0"),
        RawFile("clips", (), members=(("*.wav", 2),), note="clone it with Git LFS"),
        RawFile("pack", (server.url("none"),), archive="tar.gz", note="or ask the authors"),
        RawFile("local", ("file:///etc/hostname",)),
    )
    code, _, errors = run("get", name)
    assert code == 1
    reasons = [
        f"none: cannot be fetched (404 Not Found); fetch {server.url('none')} by hand,"
        f" put it at {data}/none, then run `msam data get {name}` again",
        "the address answers with a web page, not with the file",
        "truncated or damaged (Compressed file ended before the end-of-stream marker was reached)",
        f"wrong checksum {md5(b'bad')}, not md5:0",
        "clips: cannot be fetched (it has no address for a program); clone it with Git LFS, put it at "
        f"{data}/clips, then run",
        f"by hand, or ask the authors, put it at {data}/pack.tar.gz, then",
        "file:///etc/hostname is no address of the web",
    ]
    assert len(errors) == len(reasons)
    for error, reason in zip(errors, reasons, strict=True):
        assert error.startswith("msam: ")
        assert reason in error
    assert here(data) == []


def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(declare, run, data):
    url = "http://nowhere.invalid/x"
    code, _, errors = run("get", declare(RawFile("x", (url,))))
    assert code == 1
    assert len(errors) == 1
    assert errors[0].startswith("msam: x: cannot be fetched (")
    assert (
        f"; fetch {url} by hand, put it at {data}/x, then run `msam data get my_raw.set` again" in errors[0]
    )


def test_a_file_with_a_wrong_checksum_is_replaced(server, declare, run, data):
    server.files = {"x": CONTENT}
    name = declare(RawFile("x", (server.url("x"),), md5(CONTENT)))
    data.mkdir()
    (data / "x").write_bytes(CONTENT[1:])
    assert run("verify", name)[0] == 1
    assert run("get", name)[0] == 0
    assert (data / "x").read_bytes() == CONTENT


def test_consent_is_asked_before_anything_is_fetched(server, declare, run, data):
    server.files = {"x": CONTENT}
    name = declare(RawFile("x", (server.url("x"),)), consent="For research only.")
    message = (
        f"msam: dataset '{name}' is under the licence its own. For research only."
        f" If you accept that, run `msam data get {name} --accept-licence`"
    )
    assert run("get", name) == (1, [], [message])
    assert server.asked == []
    assert run("get", name, "--accept-licence")[0] == 0
    assert run("get", name) == (0, ["x: there"], [])


def test_options_may_decide_the_files(server, declare, run, data, tmp_path):
    server.files = {"a": b"a", "b": b"b"}
    name = declare()
    with (tmp_path / "my_raw" / "set.py").open("a") as file:
        file.write(
            "def build(kind='a'):\n    raise AssertionError\n\n\ndef FILES(kind):\n"
            f"    return (RawFile(kind, ('{server.url('')}' + kind,)),)\n"
        )
    for options, path in (("{}", "a"), ("{kind: b}", "b"), ("{kind: a}", "a")):
        assert run("get", name, "--options", options)[0] == 0
        assert run("verify", name, "--options", options) == (0, [f"ok  {path}: there"], [])
    assert [path for path, _ in server.asked] == ["a", "b"]
    _, _, (error,) = run("get", name, "--options", "{kind: c}")
    assert error.endswith(f'run `msam data get {name} --options \'{{"kind": "c"}}\'` again')


def test_a_dataset_without_files(run):
    for command in ("get", "verify"):
        assert run(command, "controlled") == (0, ["controlled needs no files"], [])
        assert run(command, "nothing")[2][0].startswith("msam: unknown dataset 'nothing'; choose from ")


def test_a_full_disk_stops_the_download_in_one_line(server, declare, run, data, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.files = {"x": CONTENT}
    monkeypatch.setattr(os, "replace", full)
    code, _, errors = run("get", declare(RawFile("x", (server.url("x"),))))
    assert code == 1
    assert errors == [
        f"msam: cannot write to the folder {data} (No space left on device);"
        " set MSAM_DATA to a folder with more space"
    ]


def test_an_interrupted_download_keeps_its_part(server, declare, data):
    server.files = {"x": CONTENT}
    name = declare(RawFile("x", (server.url("x"),), md5(CONTENT)))
    code = f"""
        import os
        from msam.datasets import _http, _download
        add = _http.Progress.add
        _http.Progress.add = lambda self, count: os._exit(9) if self.done > 4e6 else add(self, count)
        _download.get({name!r})
    """
    path = os.pathsep.join(filter(None, (str(data.parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True)
    assert run.returncode == 9
    size = (data / "x.part").stat().st_size
    assert 4e6 < size < len(CONTENT)
    assert _download.get(name) == []
    assert server.asked[-1] == ("x", f"bytes={size}-")
    assert (data / "x").read_bytes() == CONTENT


# Verify


def test_verify_lists_what_is_there_missing_or_wrong(declare, run, data):
    name = declare(
        RawFile("a", (), md5(b"a")),
        RawFile("b", (), md5(b"b")),
        RawFile("c"),
        RawFile("d.gz", (), md5(b"d")),
        RawFile("e", archive="zip"),
        RawFile("clips", (), members=(("*.wav", 3), ("*/*.jpg", 1), ("list.csv", 1))),
        RawFile("gone", (), members=(("*.wav", 1200),)),
    )
    (data / "clips" / "x").mkdir(parents=True)
    for path in ("clips/1.wav", "clips/2.wav", "clips/x/1.jpg", "clips/x/2.jpg", "c"):
        (data / path).write_bytes(b"")
    (data / "a").write_bytes(b"a")
    (data / "b").write_bytes(b"a")
    (data / "d.gz").write_bytes(gzip.compress(b"d")[:-3])
    (data / "e").mkdir()
    code, out, errors = run("verify", name)
    assert (code, errors) == (1, [])
    assert out == [
        "ok  a: checksum right",
        f"BAD b: wrong checksum {md5(b'a')}, not {md5(b'b')}",
        "ok  c: there",
        "BAD d.gz: truncated or damaged (Compressed file ended before the end-of-stream marker was reached)",
        "ok  e: there",
        "BAD clips/*.wav: 2 of 3 files",
        "ok  clips/*/*.jpg: 2 of 1 files",
        "BAD clips/list.csv: 0 of 1 files",
        "BAD gone/*.wav: 0 of 1,200 files",
    ]
    assert _verify.verify(name)[0].good


# Archives


def tar_of(*entries):
    """A tar archive of (name, content) pairs or of ready `TarInfo`s."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
    return buffer.getvalue()


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_of(*entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


def zip_mode(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


@pytest.fixture
def extract(tmp_path):
    """Extract bytes into `tmp_path/in/out`, and return that folder."""

    def extract(content, kind="tar", members=()):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / "archive").write_bytes(content)
        _archive.extract(tmp_path / "in" / "archive", kind, tmp_path / "in" / "out", members)
        return tmp_path / "in" / "out"

    return extract


FILES = (("top/a.wav", b"a"), ("top/deep/er/b.wav", b"b" * 3_000_000))
ARCHIVES = {
    "tar": tar_of(*FILES),
    "tar.gz": gzip.compress(tar_of(*FILES), compresslevel=1),
    "zip": zip_of(*FILES),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_are_fetched_extracted_and_deleted(server, declare, run, data, kind):
    server.files = {"pack": ARCHIVES[kind]}
    members = (("*.wav", 1), ("deep/**/*.wav", 1))
    name = declare(RawFile("clips", (server.url("pack"),), md5(ARCHIVES[kind]), kind, members))
    assert run("get", name)[0] == 0
    assert here(data) == ["clips/a.wav", "clips/deep/er/b.wav"]
    assert (data / "clips/deep/er/b.wav").read_bytes() == b"b" * 3_000_000
    assert run("verify", name) == (
        0,
        ["ok  clips/*.wav: 1 of 1 files", "ok  clips/deep/**/*.wav: 1 of 1 files"],
        [],
    )
    assert run("get", name) == (0, ["clips: there"], [])
    assert len(server.asked) == 1


def test_the_top_folder_stays_where_the_members_are_in_it(extract):
    assert (extract(ARCHIVES["zip"], "zip", (("top/*.wav", 1),)) / "top" / "a.wav").is_file()


def test_an_archive_put_there_by_hand_is_used_and_kept(declare, run, data):
    name = declare(RawFile("clips", (), md5(ARCHIVES["zip"]), "zip", (("*.wav", 1),)))
    data.mkdir()
    (data / "clips.zip").write_bytes(b"x")
    code, _, (error,) = run("get", name)
    assert code == 1
    assert error.startswith(f"msam: clips: wrong checksum {md5(b'x')}")
    (data / "clips.zip").write_bytes(ARCHIVES["zip"])
    assert run("get", name) == (0, ["clips: extracting", "clips: complete"], [])
    assert here(data) == ["clips.zip", "clips/a.wav", "clips/deep/er/b.wav"]


def test_a_folder_that_is_not_complete_is_left_alone(server, declare, run, data):
    server.files = {"pack": ARCHIVES["zip"]}
    name = declare(RawFile("clips", (server.url("pack"),), archive="zip", members=(("*.wav", 1),)))
    (data / "clips").mkdir(parents=True)
    (data / "clips" / "mine").write_text("")
    code, _, errors = run("get", name)
    advice = "(clips/*.wav: 0 of 1 files); move the folder away and run this again"
    assert (code, errors) == (1, [f"msam: {data}/clips is not complete {advice}"])
    assert here(data) == ["clips/mine"]
    (data / "clips" / "mine").unlink()
    assert run("get", name)[0] == 0


def cuts(content):
    return [content[:size] for size in (0, 100, len(content) // 2, len(content) - 1)]


TRUNCATED = [
    *(("tar.gz", cut) for cut in cuts(ARCHIVES["tar.gz"])),
    *(("zip", cut) for cut in cuts(ARCHIVES["zip"])),
    *(("tar", cut) for cut in (*cuts(ARCHIVES["tar"])[:3], ARCHIVES["tar"][:1024], ARCHIVES["tar"][:1536])),
    ("tar", b"x" * 9999),
    ("tar.gz", gzip.compress(ARCHIVES["tar"][:1024])),
]


# named by place: the content holds the second in which it was compressed, and workers must agree on names
@pytest.mark.parametrize(("kind", "content"), TRUNCATED, ids=range(len(TRUNCATED)))
def test_a_truncated_archive_is_refused_in_one_line(server, declare, run, data, kind, content):
    server.files = {"pack": content}
    code, _, errors = run("get", declare(RawFile("clips", (server.url("pack"),), archive=kind)))
    assert code == 1
    assert len(errors) == 1
    assert errors[0].startswith(f"msam: archive {data}/clips.{kind} is truncated or damaged (")
    assert errors[0].endswith("); it is deleted, run `msam data get my_raw.set` again")
    assert here(data) == []


def test_damage_in_the_middle_of_a_zip_file_is_seen(extract):
    damaged = bytearray(ARCHIVES["zip"])
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(DatasetError, match=r"archive .* is truncated or damaged"):
        extract(bytes(damaged), "zip")


OUT = "leaves the folder"
NO_FILE = "points to no file of the archive"
HOSTILE = {
    "parent": ("tar", tar_of(("../evil", b"x")), f"'../evil' {OUT}"),
    "parent inside": ("tar", tar_of(("a/../../evil", b"x")), OUT),
    "absolute": ("tar", tar_of(("/tmp/evil", b"x")), f"'/tmp/evil' {OUT}"),
    "parent folder": ("tar", tar_of(special("../evil", tarfile.DIRTYPE)), OUT),
    "symlink out": ("tar", tar_of(special("a", tarfile.SYMTYPE, "../evil"), ("a/x", b"x")), OUT),
    "symlink absolute": ("tar", tar_of(special("a", tarfile.SYMTYPE, "/etc/passwd")), OUT),
    "symlink deep": ("tar", tar_of(special("a/b/c", tarfile.SYMTYPE, "../../../evil")), OUT),
    "symlink to folder": ("tar", tar_of(("d/x", b"x"), special("a", tarfile.SYMTYPE, "d")), NO_FILE),
    "symlink to nothing": ("tar", tar_of(special("a", tarfile.SYMTYPE, "b")), NO_FILE),
    "symlink to symlink": (
        "tar",
        tar_of(special("a", tarfile.SYMTYPE, "b"), special("b", tarfile.SYMTYPE, "a")),
        NO_FILE,
    ),
    "hard link out": ("tar", tar_of(special("a", tarfile.LNKTYPE, "../evil")), OUT),
    "hard link absolute": ("tar", tar_of(special("a", tarfile.LNKTYPE, "/etc/passwd")), OUT),
    "device": ("tar", tar_of(special("a", tarfile.CHRTYPE)), "'a' is a device"),
    "pipe": ("tar", tar_of(special("a", tarfile.FIFOTYPE)), "'a' is a device"),
    "zip parent": ("zip", zip_of(("../evil", b"x")), OUT),
    "zip absolute": ("zip", zip_of(("/tmp/evil", b"x")), OUT),
    "zip symlink": ("zip", zip_of((zip_mode("a", stat.S_IFLNK | 0o777), "../evil")), OUT),
    "zip device": ("zip", zip_of((zip_mode("a", stat.S_IFCHR | 0o777), "")), "'a' is a device"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_writes_nothing(extract, tmp_path, case):
    kind, content, message = HOSTILE[case]
    with pytest.raises(DatasetError) as error:
        extract(content, kind)
    assert str(error.value).startswith(f"archive {tmp_path}/in/archive is refused: ")
    assert message in str(error.value)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["in", "in/archive"]


def test_a_link_to_a_file_of_the_archive_becomes_a_copy(extract):
    entries = [
        special("d/link", tarfile.SYMTYPE, "../a"),
        ("a", b"one"),
        special("hard", tarfile.LNKTYPE, "a"),
    ]
    folder = extract(tar_of(*entries))
    for name in ("d/link", "hard"):
        assert not (folder / name).is_symlink()
        assert (folder / name).read_bytes() == b"one"
    assert (folder / "a").stat().st_nlink == 1


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [("MAX_BYTES", 2_000_000, "more than 2,000,000 bytes"), ("MAX_FILES", 1, "more than 1 entries")],
)
def test_sizes_are_limited(extract, monkeypatch, kind, limit, value, message):
    monkeypatch.setattr(_archive, limit, value)
    with pytest.raises(DatasetError, match=message):
        extract(ARCHIVES[kind], kind)


def test_copies_of_links_count(extract, monkeypatch):
    monkeypatch.setattr(_archive, "MAX_BYTES", 15)
    with pytest.raises(DatasetError, match="more than 15 bytes"):
        extract(tar_of(("a", b"x" * 10), special("b", tarfile.LNKTYPE, "a")))


def test_an_archive_that_lacks_members_is_refused_with_counts(extract, tmp_path):
    with pytest.raises(DatasetError, match=r"refused: it has only 1 of 2,000 \*.wav, 0 of 1 list.csv"):
        extract(ARCHIVES["zip"], "zip", (("*.wav", 2000), ("list.csv", 1)))
    assert not (tmp_path / "in" / "out").exists()


def test_what_an_extraction_left_that_was_killed_is_cleared(extract, tmp_path):
    (tmp_path / "in" / "out.extracting").mkdir(parents=True)
    (tmp_path / "in" / "out.extracting" / "old").write_text("")
    assert not (extract(ARCHIVES["tar"]) / "old").exists()
    assert not (tmp_path / "in" / "out.extracting").exists()


def test_a_full_disk_stops_the_extraction_and_keeps_the_archive(server, declare, run, data, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.files = {"pack": ARCHIVES["zip"]}
    name = declare(RawFile("clips", (server.url("pack"),), archive="zip"))
    with monkeypatch.context() as patch:
        patch.setattr(_archive, "_copy", full)
        code, _, errors = run("get", name)
    assert (code, len(errors)) == (1, 1)
    assert "cannot write to the folder" in errors[0]
    assert here(data) == ["clips.zip"]
    assert run("get", name)[0] == 0
