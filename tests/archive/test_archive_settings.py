"""What an operator sets for an archive elsewhere, and what the doctor and the log say about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from archives import finished
from buckets import KEY_ID, SECRET, BucketServer
from conftest import KEY, environment
from lives import live, until

from mj_mcp.settings import SettingsError, read_settings
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio


def command(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mj_mcp", *words], env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
async def test_the_doctor_writes_reads_and_removes_an_object(
    bucket_server: BucketServer, sim: Simulator, tmp_path: Path
) -> None:
    bucket = bucket_server.new()

    async def line(url: str, **extra: str) -> str:
        env = environment(sim.url, tmp_path, MJ_ARCHIVE_URL=url, **{**bucket_server.environment(), **extra})
        done = await anyio.to_thread.run_sync(lambda: command("doctor", env=env))
        (found,) = [line for line in done.stdout.splitlines() if "archive:" in line]
        assert done.returncode == (1 if "FAIL" in found else 0), done.stdout
        assert "Traceback" not in done.stderr
        for secret in (SECRET, KEY_ID):
            assert secret not in done.stdout + done.stderr
        return found

    well = await line(f"s3://{bucket}/mj")
    assert well == f"ok    archive: s3://{bucket}/mj: written, read and removed one object"
    assert bucket_server.objects(bucket) == {}
    absent = await line("s3://not-there")
    assert absent.startswith("FAIL  archive: s3://not-there: there is no such bucket; check MJ_ARCHIVE_URL")
    with bucket_server.locked():
        assert "check AWS_ACCESS_KEY_ID (InvalidAccessKeyId)" in await line(f"s3://{bucket}")
    with bucket_server.away():
        assert "it does not answer; check AWS_ENDPOINT_URL" in await line(f"s3://{bucket}")
    assert await line((tmp_path / "shared").as_uri()) == f"ok    archive: {tmp_path / 'shared'}"
    (tmp_path / "file").touch()
    assert "set MJ_ARCHIVE_URL" in await line((tmp_path / "file" / "in").as_uri())


async def test_a_bucket_that_refuses_is_logged_with_what_to_do_and_without_the_key(
    bucket_server: BucketServer, sim: Simulator, tmp_path: Path
) -> None:
    url = f"s3://{bucket_server.new()}"
    with bucket_server.locked():
        async with live(sim, tmp_path, MJ_ARCHIVE_URL=url, **bucket_server.environment()) as life:
            task = await finished(sim, life)
            assert all(image["path"] for image in task["images"])
            await until(lambda: life.logged("bucket_unavailable"))
            said = life.logged("bucket_unavailable")[0]
            assert "check AWS_ACCESS_KEY_ID" in said["reason"]
            assert said["level"] == "warning"
            assert said["waiting"] >= 1
    log = (tmp_path / "server.log").read_text()
    assert SECRET not in log
    assert KEY_ID not in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_bucket_without_the_extra_is_refused_with_how_to_get_it(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['obstore.store'] = None\n")
    env = environment("http://127.0.0.1:9", tmp_path, MJ_ARCHIVE_URL="s3://pictures", PYTHONPATH=str(hidden))
    for words in ((), ("doctor",)):
        done = command(*words, env=env)
        assert done.returncode == 1
        assert "pip install 'mj-mcp[s3]'" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_a_server_without_a_bucket_does_not_import_its_library() -> None:
    code = "import sys, mj_mcp.app, mj_mcp.server; sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


CANARY = "canary-in-url-4d2a"


@pytest.mark.parametrize(
    "url",
    [
        f"gs://{CANARY}",
        f"https://{CANARY}.s3.amazonaws.com",
        f"/{CANARY}/folder",
        f"{CANARY}/folder",
        f"file://{CANARY}/folder",
        "file:///",
        "file:folder",
        "s3://",
        "s3:///prefix",
        "s3://a",
        f"s3://{CANARY}:{CANARY}@bucket/prefix",
        f"s3://{CANARY}@bucket",
        f"s3://bucket?secret={CANARY}",
        f"s3://bucket#{CANARY}",
        f"s3://bucket/../{CANARY}",
        f"s3://bucket/%2e%2e/{CANARY}",
        f"s3://bucket//{CANARY}",
        f"s3://bucket/a {CANARY}",
        f"file:///shared/../{CANARY}",
        "s3://[",
    ],
)
def test_an_archive_elsewhere_is_refused_and_what_is_allowed_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_API_KEY", KEY)
    monkeypatch.setenv("MJ_ARCHIVE_URL", url)
    with pytest.raises(SettingsError, match=r"^MJ_ARCHIVE_URL is not usable: .*(file:///|must not|be a URL)") as caught:
        read_settings()
    assert CANARY not in str(caught.value)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_API_KEY", KEY)


@pytest.mark.usefixtures("key")
def test_an_archive_is_a_folder_or_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings(data_dir=Path("/data"))
    assert (settings.archive_folder, settings.bucket_url) == (Path("/data/archive"), "")
    settings = read_settings(data_dir=Path("/data"), archive_url="file:///shared/my%20pictures")
    assert (settings.archive_folder, settings.bucket_url) == (Path("/shared/my pictures"), "")
    settings = read_settings(data_dir=Path("/data"), archive_url="s3://my-bucket/a/b/")
    assert (settings.archive_folder, settings.bucket_url) == (Path("/data/archive"), "s3://my-bucket/a/b/")


@pytest.mark.usefixtures("key")
def test_the_endpoint_says_whether_it_goes_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not read_settings().bucket_over_http
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert read_settings().bucket_over_http
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.com")
    assert not read_settings().bucket_over_http


@pytest.mark.usefixtures("key")
def test_what_opens_the_bucket_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    assert {SECRET, "a-token"} <= set(read_settings().secrets)
