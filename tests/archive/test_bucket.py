"""The bucket alone: what lies in it, what it refuses, and how long it is waited for.

The bucket is a real S3 server over loopback.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from archives import PATIENCE, at, png, store, unsent
from buckets import KEY_ID, BucketServer, refusing, scripted_server, silent
from lives import until
from structlog.testing import capture_logs

from mj_mcp.archive.bucket import BucketUnavailable, open_bucket
from mj_mcp.archive.folder import SHEET
from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import MAX_PICTURE_BYTES, SHEET_BYTES

pytestmark = pytest.mark.anyio


async def test_objects_lie_below_the_prefix_and_say_what_they_are(
    bucket_name: str, bucket_server: BucketServer, tmp_path: Path
) -> None:
    async with store(tmp_path, at(bucket_name)) as ours:
        await ours.put("sub", 1, png(1), "png")
        await until(lambda: bucket_server.objects(bucket_name) == {"some/where/sub+1": png(1)})
        await until(lambda: unsent(tmp_path) == [])
    assert bucket_server.media_type(bucket_name, "some/where/sub+1") == "image/png"


async def test_what_the_folder_had_no_room_for_comes_back_from_the_bucket(bucket_name: str, tmp_path: Path) -> None:
    async with store(tmp_path, at(bucket_name), room=1) as ours:
        first = await ours.put("one", 1, png(1), "png")
        await until(lambda: unsent(tmp_path) == [])
        await ours.put("two", 1, png(2), "png")
        assert not first.exists()
        found = await ours.get("one", 1)
        assert found is not None
        assert found.data == png(1)
        assert found.path == first
        assert first.exists()


async def test_no_ceiling_drops_what_the_bucket_does_not_have(
    bucket_name: str, bucket_server: BucketServer, tmp_path: Path
) -> None:
    async with store(tmp_path, at(bucket_name), room=1, retry_seconds=0.1) as ours:
        with bucket_server.away():
            with capture_logs() as logs:
                for number in range(5):
                    await ours.put("sub", number, png(number), "png")
                await until(lambda: [line for line in logs if line.get("waiting") == 5])
            assert len(list(tmp_path.glob("*+*"))) == 1
            for number in range(5):
                found = await ours.get("sub", number)
                assert found is not None
                assert found.data == png(number)
        await until(lambda: unsent(tmp_path) == [])
    assert bucket_server.objects(bucket_name) == {f"some/where/sub+{number}": png(number) for number in range(5)}


async def test_one_object_that_is_refused_for_ever_does_not_hold_up_the_others(
    bucket_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "unsent"
    folder.mkdir()
    for age, name in enumerate(("bad+1.png", "good+1.png", "good+2.png")):
        (folder / name).write_bytes(png(1))
        os.utime(folder / name, ns=(0, age))
    async with scripted_server(refusing("bad")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with capture_logs() as logs:
            async with store(tmp_path, at(bucket_name), retry_seconds=0.1):
                await until(lambda: unsent(tmp_path) == ["bad+1.png"])
    assert "bad" in server.asked[0]
    assert logs[0] == {
        "event": "bucket_unavailable",
        "verb": "put",
        "reason": "it refuses (KeyTooLongError)",
        "waiting": 3,
        "log_level": "warning",
    }
    assert KEY_ID not in str(logs)


@pytest.mark.parametrize(
    ("what", "size"), [(1, MAX_PICTURE_BYTES + 1), (SHEET, SHEET_BYTES + 1)], ids=["an original", "a sheet"]
)
async def test_an_object_that_is_too_large_is_none_of_ours(
    what: Any, size: int, bucket_name: str, bucket_server: BucketServer, tmp_path: Path
) -> None:
    whole = png(1)
    bucket_server.write(bucket_name, f"some/where/sub+{what}", whole + bytes(size - len(whole)))
    with capture_logs() as logs:
        async with store(tmp_path, at(bucket_name)) as ours:
            assert await ours.get("sub", what) is None
    assert [line["event"] for line in logs] == ["bucket_object_refused"]
    assert list(tmp_path.iterdir()) == []
    bucket_server.write(bucket_name, f"some/where/sub+{what}", whole)
    async with store(tmp_path, at(bucket_name)) as ours:
        assert await ours.get("sub", what) is not None


async def test_a_bucket_without_a_key_it_knows_and_one_that_is_not_there_say_what_to_do(
    bucket_name: str, bucket_server: BucketServer
) -> None:
    with bucket_server.locked():
        with pytest.raises(BucketUnavailable, match=r"check AWS_ACCESS_KEY_ID \(InvalidAccessKeyId\)$"):
            await at(bucket_name).put("x", b"x", "text/plain")
        with pytest.raises(BucketUnavailable, match="AWS_ACCESS_KEY_ID"):
            await at(bucket_name).get("x", 1)
    for ask in (at("not-there").put("x", b"x", "text/plain"), at("not-there").get("x", 1)):
        with pytest.raises(BucketUnavailable, match=r"no such bucket; check MJ_ARCHIVE_URL.*\(NoSuchBucket\)$"):
            await ask


async def test_a_bucket_that_never_answers_is_given_up_in_time(
    bucket_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted_server(silent) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        bucket = at(bucket_name, read_seconds=0.2, write_seconds=0.3)
        asks = [bucket.get("x", 1), bucket.put("x", b"x", "text/plain"), bucket.delete("x")]
        with anyio.fail_after(PATIENCE / 2):
            for ask, seconds in zip(asks, (0.2, 0.3, 0.2), strict=True):
                with pytest.raises(BucketUnavailable, match=f"did not answer within {seconds} s; check") as caught:
                    await ask
                assert not caught.value.refused
        assert [line.split()[0] for line in server.asked] == ["GET", "PUT", "DELETE"]


async def test_an_endpoint_without_tls_is_for_the_operator_to_name(bucket_name: str) -> None:
    refused = open_bucket(f"s3://{bucket_name}", over_http=False)
    with pytest.raises(BucketUnavailable):
        await refused.put("x", b"x", "text/plain")
    with pytest.raises(BucketUnavailable):
        await refused.get("x", 1)
    assert await open_bucket(f"s3://{bucket_name}", over_http=True).get("x", 1) is None


async def test_more_bytes_than_allowed_are_never_read(bucket_name: str, bucket_server: BucketServer) -> None:
    bucket_server.write(bucket_name, "some/where/x", bytes(11))
    assert await at(bucket_name).get("x", 11) == bytes(11)
    with pytest.raises(ImageUnavailable):
        await at(bucket_name).get("x", 10)
