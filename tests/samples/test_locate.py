"""Files are found by name, pattern, list and URL, read from servers with and without ranges, and
what is wrong is said in one line.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pfcalib.errors import BadFileError
from pfcalib.samples.locate import as_paths, is_url, open_binary, require_served, seekable
from pfcalib.samples.read import iterate_sample, read_sample


class Whole(http.server.SimpleHTTPRequestHandler):
    """Sends files only whole, as Python's own server does; some names are answered with an
    error.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Nothing on the terminal."""

    def send_head(self):
        path = Path(self.translate_path(self.path))
        status = {"forbidden.root": 403, "broken.root": 500}.get(path.name)
        if status or not path.is_file():
            if status is None and path.is_dir():
                return super().send_head()
            self.send_error(status or 404)
            return None
        return self.send_file(path.read_bytes())

    def send_file(self, data, status=200, headers=()):
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(data)))):
            self.send_header(name, value)
        self.end_headers()
        return io.BytesIO(data)


class Parts(Whole):
    """Heeds Range, as storage does."""

    def send_file(self, data, status=200, headers=()):
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return super().send_file(data, headers=[("Accept-Ranges", "bytes")])
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        self.server.n_parts += 1
        return super().send_file(
            data[first : last + 1], 206, [("Content-Range", f"bytes {first}-{last}/{len(data)}")]
        )


@pytest.fixture
def serve(tmp_path):
    """Serve the folder of the test: call with a handler, get the address."""
    servers = []

    def start(handler):
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path))
        )
        server.daemon_threads, server.n_parts = True, 0
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def equal(a, b):
    return all(np.array_equal(a[name], b[name]) for name in b.scalars) and all(
        np.array_equal(a.cells[name], b.cells[name]) for name in b.cells
    )


@pytest.fixture
def files(tmp_path):
    for name in ("run1/b.root", "run1/a.root", "run2/c.root", "run2/deep/d.root", "run2/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_one_name_or_many_keep_their_order(files):
    names = [
        files / "run2/c.root",
        str(files / "run1/a.root"),
        "https://example.org/x.root",
        files / "not_there.root",
    ]
    assert as_paths(names) == [names[0], Path(names[1]), names[2], names[3]]
    assert as_paths(names[1]) == as_paths(Path(names[1])) == [Path(names[1])]


def test_a_pattern_gives_its_files_sorted(files):
    assert as_paths(files / "run1/*.root") == [files / "run1/a.root", files / "run1/b.root"]
    assert as_paths(str(files / "run?/[ac].root")) == [files / "run1/a.root", files / "run2/c.root"]
    assert as_paths(files / "**/*.root") == [
        files / name for name in ("run1/a.root", "run1/b.root", "run2/c.root", "run2/deep/d.root")
    ]


def test_a_pattern_leaves_folders_out(files):
    assert as_paths(files / "run2/*") == [files / "run2/c.root", files / "run2/notes.txt"]
    with pytest.raises(BadFileError, match=r"run2/de\*: no file matches this pattern"):
        as_paths(files / "run2/de*")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(files):
    (files / "odd[1].root").touch()
    assert as_paths(files / "odd[1].root") == [files / "odd[1].root"]


def test_home_is_understood(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files))
    assert as_paths("~/run1/a*.root") == [files / "run1/a.root"]


def test_a_list_names_files_beside_it(files):
    (files / "list.txt").write_text(
        "# comment\nrun2/c.root\n\n  run1/*.root # "
        f"more\n{files}/run2/deep/d.root\nmemory://x/y.root\n"
    )
    expected = [
        files / name for name in ("run2/c.root", "run1/a.root", "run1/b.root", "run2/deep/d.root")
    ]
    assert as_paths(f"@{files}/list.txt") == [*expected, "memory://x/y.root"]
    more = as_paths([f"@{files}/list.txt", files / "run2/notes.txt"])
    assert more[-1] == files / "run2/notes.txt"


def test_a_file_that_is_named_twice_counts_once_and_is_named(files):
    (files / "list.txt").write_text("run1/a.root\nmemory://x/y.root\n")
    (files / "link.root").symlink_to(files / "run1/b.root")
    names = [f"@{files}/list.txt", files / "run1/*.root", "memory://x/y.root"]
    with pytest.warns(UserWarning, match="was given twice") as told:
        found = as_paths([*names, files / "run2/../run1/a.root", files / "link.root"])
    assert found == [files / "run1/a.root", "memory://x/y.root", files / "run1/b.root"]
    texts = [str(warning.message) for warning in told]
    assert [text.partition(" was given twice")[0] for text in texts] == [
        f"{files}/run1/a.root",
        "memory://x/y.root",
        f"{files}/run2/../run1/a.root",
        f"{files}/link.root",
    ]
    assert texts[-1].endswith(f"also as {files}/run1/b.root: it is counted once")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# nothing\n", "names no file"),
        ("@other.txt\n", "cannot name another list"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_is_no_use_is_refused(files, content, message):
    if content is not None:
        (files / "list.txt").write_text(content)
    with pytest.raises(BadFileError, match=rf"list\.txt: .*{message}"):
        as_paths(f"@{files}/list.txt")


def test_nothing_is_refused():
    with pytest.raises(BadFileError, match="no sample file was given"):
        as_paths([])


def test_a_directory_is_refused_with_a_hint(files):
    with pytest.raises(
        BadFileError,
        match=r"run1: is a directory, not a file; all ROOT files in it are .*run1/\*\.root",
    ):
        as_paths(files / "run1")


def test_a_url_of_this_machine_is_a_path(files):
    assert as_paths(f"file://{files}/run1/*.root") == [files / "run1/a.root", files / "run1/b.root"]
    with pytest.raises(BadFileError, match="is a directory"):
        as_paths(f"file://{files}/run1")


def test_only_what_has_a_protocol_is_a_url():
    assert [
        is_url(name) for name in ("root://host//a.root", "memory://a", Path("http://a"), "a:b.root")
    ] == [True, True, False, False]


@pytest.mark.parametrize("handler", [Parts, Whole])
def test_a_sample_is_read_over_http(sample, path, serve, handler):
    address, server = serve(handler)
    assert equal(read_sample(f"{address}/sample.root"), sample)
    assert (server.n_parts > 0) == (handler is Parts)


def test_chunks_are_read_over_http(sample, path, serve):
    url = f"{serve(Parts)[0]}/sample.root"
    chunks = list(iterate_sample([url, path], step=200))
    assert [len(chunk) for chunk in chunks] == [200, 100, 200, 100]
    assert np.array_equal(
        np.concatenate([chunk["truthE"] for chunk in chunks[:2]]), sample["truthE"]
    )


def test_a_copy_of_a_file_sent_whole_is_removed(path, serve):
    with seekable(f"{serve(Whole)[0]}/sample.root") as place:
        assert place.read_bytes() == path.read_bytes()
    assert not place.exists()


def test_a_page_of_links_can_be_searched(sample, path, serve):
    address, _ = serve(Whole)
    assert as_paths(f"{address}/*.root") == [f"{address}/sample.root"]
    with pytest.raises(BadFileError, match=r"x\*\.root: no file matches this pattern"):
        as_paths(f"{address}/x*.root")


def test_a_sample_is_read_from_memory(sample, path):
    fsspec.filesystem("memory").pipe("/locate/sample.root", path.read_bytes())
    assert equal(read_sample("memory://locate/sample.root"), sample)
    assert as_paths("memory://locate/*.root") == ["memory:///locate/sample.root"]
    assert equal(read_sample("memory://locate/*.root"), sample)


@pytest.mark.parametrize("name", ["part:1.root", "100%.root", "a b.root", "ä.root"])
def test_names_with_odd_characters_are_read(sample, path, name):
    assert equal(read_sample(path.rename(path.with_name(name))), sample)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.root", "no such file on the server"),
        ("forbidden.root", "the server answers 403"),
        ("broken.root", "the server answers 500"),
    ],
)
def test_an_answer_that_is_no_file_is_said(path, serve, name, message):
    url = f"{serve(Parts)[0]}/{name}"
    for read in (require_served, read_sample):
        with pytest.raises(BadFileError, match=rf"^{url}: {message}"):
            read(url)


def test_a_server_that_is_not_there_is_said():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.root"
    with pytest.raises(BadFileError, match=rf"^{url}: cannot be opened \(Cannot connect to host"):
        read_sample(url)


@pytest.mark.parametrize(
    "url",
    [
        "memory://locate/none.root",
        "memory://locate/empty.root",
        "memory://locate",
        "nosuch://host/a.root",
    ],
)
def test_other_urls_that_cannot_be_read_are_said(url):
    fsspec.filesystem("memory").pipe("/locate/empty.root", b"")
    message = {
        "none.root": "no such file",
        "empty.root": "is empty",
        "locate": "is a directory",
        "a.root": "Protocol not known: nosuch",
    }
    with pytest.raises(BadFileError, match=message[url.rpartition("/")[2]]):
        read_sample(url)


def test_a_url_that_is_skipped_is_reported(sample, path, serve):
    with pytest.warns(UserWarning, match="no such file on the server"):
        left = read_sample([path, f"{serve(Parts)[0]}/none.root"], on_error="skip")
    assert equal(left, sample)


@pytest.mark.parametrize("handler", [Parts, Whole])
def test_any_byte_can_be_reached(path, serve, handler):
    for place in (path, f"{serve(handler)[0]}/sample.root"):
        with open_binary(place) as file:
            file.seek(100)
            assert file.read(20) == path.read_bytes()[100:120]


@pytest.fixture
def xrootd(path):
    """Address of a folder with the sample, served by a real XRootD server."""
    pytest.importorskip("fsspec_xrootd", reason="the extra [xrootd] is not installed")
    if not shutil.which("xrootd"):
        pytest.skip("there is no program xrootd (Debian: xrootd-server)")
    with tempfile.TemporaryDirectory() as name, socket.socket() as free:
        # not tmp_path: a server started by root runs as nobody, who may not look there
        folder = Path(name)
        folder.chmod(0o777)
        shutil.copy(path, folder / "sample.root")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        (folder / "server.cfg").write_text(
            f"all.export {folder}\nxrd.port {port}\nall.adminpath {folder}/admin\nall.pidpath "
            f"{folder}/admin\n"
        )
        free.close()
        command = [
            "xrootd",
            *(["-R", "nobody"] if os.geteuid() == 0 else []),
            "-c",
            str(folder / "server.cfg"),
            "-l",
            str(folder / "log"),
        ]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield f"root://127.0.0.1:{port}/{folder}"
            server.terminate()


def test_a_sample_is_read_over_xrootd(sample, xrootd):
    assert equal(read_sample(f"{xrootd}/sample.root"), sample)
    assert as_paths(f"{xrootd}/sam*.root") == [f"{xrootd}/sample.root"]
    with pytest.raises(BadFileError, match=r"none\.root: no such file on the server"):
        read_sample(f"{xrootd}/none.root")
    with pytest.raises(BadFileError, match="is a directory"):
        read_sample(xrootd)


WITHOUT_XROOTD = """
import sys
sys.modules["fsspec_xrootd"] = None
from pfcalib.errors import BadFileError
from pfcalib.samples.locate import require_served
try:
    require_served("root://localhost//a.root")
except BadFileError as error:
    print(error)
"""


def test_a_missing_extra_is_named():
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_XROOTD], capture_output=True, text=True, check=True
    )
    assert (
        run.stdout.strip()
        == "root://localhost//a.root: needs pfcalib's extra [xrootd] (fsspec-xrootd and XRootD)"
    )
