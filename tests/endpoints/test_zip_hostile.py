"""Archives that are not what they say: each kind is named, nothing of it is believed, and memory stays bounded."""

import resource
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dcmsync.contract import Ending, Level
from dcmsync.endpoints.zip import faults
from dcmsync.endpoints.zip.reader import Reader
from dcmsync.endpoints.zip.stock import take_stock
from dcmsync.errors import LocalTrouble
from tests.endpoints.landing_run import data_set
from tests.endpoints.packing_run import remembering
from tests.endpoints.test_zip import Shore, Source, file_of, keys_of, zip_of

IMAGE = file_of("1.2.3.4")
LOCAL, ENTRY, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"


def judged(path: Path) -> tuple[list[str], dict[str, tuple[str, str]], Ending]:
    """What an archive gives (the UIDs of its instances), the members that it does not, and how the list ends."""
    source = Source(path)
    answers, ending = source.find(**keys_of(Level.INSTANCE))
    uids = [str(answer["SOPInstanceUID"]) for answer in answers]
    assert len(source.fetch(*uids).files) == len(uids)
    return uids, source.others(), ending


def refuses(path: Path, name: str, why: str) -> None:
    """One member is refused by name and with this reason; the other, `good`, is given."""
    uids, others, ending = judged(path)
    assert uids == ["1.2.3.9"]
    assert list(others) == [name]
    assert others[name][0] == "refused"
    assert why in others[name][1]
    assert ending == Ending(is_last_word=True, truncated=True, why="1 members are refused; -v says why")


def made(path: Path, name: str = "bad", octets: bytes = IMAGE, **changes: object) -> Path:
    """An archive of `good`, and of a member with these changes to what zipfile says of it."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    for key, value in changes.items():
        setattr(info, key, value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good", file_of("1.2.3.9"))
        archive.writestr(info, octets)
    return path


def patch(path: Path, at: Callable[[bytes], int], form: str, change: Callable[[int], int]) -> None:
    """Changes one number in the octets of a file."""
    octets = bytearray(path.read_bytes())
    begin = at(bytes(octets))
    (number,) = struct.unpack_from(form, octets, begin)
    struct.pack_into(form, octets, begin, change(number))
    path.write_bytes(octets)


def last(mark: bytes, field: int) -> Callable[[bytes], int]:
    return lambda octets: octets.rindex(mark) + field


# what the directory gives away


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../../etc/passwd", "leads out"),
        ("a/../../b", "leads out"),
        ("..", "leads out"),
        ("a\\..\\..\\b", "leads out"),
        ("/etc/passwd", "root of a file system"),
        ("\\server\\share", "root of a file system"),
        ("C:\\x", "root of a file system"),
        ("d:x", "root of a file system"),
        ("a\nb", "control characters"),
        ("a\x1b[2Jb", "control characters"),
        ("a\x7f", "control characters"),
    ],
)
def test_a_name_that_slips_is_refused(tmp_path: Path, name: str, why: str) -> None:
    path = made(tmp_path / "a.zip", "Q" * len(name) if "\\" in name else name)
    if "\\" in name:
        path.write_bytes(path.read_bytes().replace(b"Q" * len(name), name.encode()))
    refuses(path, name, why)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def test_a_name_with_nul_is_refused_under_its_whole_name(tmp_path: Path) -> None:
    path = made(tmp_path / "a.zip", "goodQ.exe")
    path.write_bytes(path.read_bytes().replace(b"goodQ.exe", b"good\0.exe"))
    refuses(path, "good\0.exe", "control characters")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (stat.S_IFLNK, "symbolic link"), (stat.S_IFCHR, "device"), (stat.S_IFBLK, "device"), (stat.S_IFIFO, "FIFO"),
        (stat.S_IFSOCK, "socket"), (stat.S_IFDIR, "folder with content"), (0o030000, "no regular file"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("system", [3, 0])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: int, why: str, system: int) -> None:
    changes = {"external_attr": (kind | 0o777) << 16, "create_system": system}
    refuses(made(tmp_path / "a.zip", octets=b"/etc/passwd", **changes), "bad", why)


def test_links_that_zip_keeps_are_refused(tmp_path: Path, require: Callable[[str], str]) -> None:
    (tmp_path / "good").write_bytes(file_of("1.2.3.9"))
    (tmp_path / "bad").symlink_to("good")
    subprocess.run([require("zip"), "-qy", "a.zip", "good", "bad"], check=True, cwd=tmp_path)
    refuses(tmp_path / "a.zip", "bad", "symbolic link")


def test_folders_are_passed_by_and_content_behind_a_slash_is_not(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"folder/": b"", "good": file_of("1.2.3.9")})
    assert judged(path) == (["1.2.3.9"], {}, Ending(is_last_word=True))
    path = made(tmp_path / "b.zip", "folderQ")
    path.write_bytes(path.read_bytes().replace(b"folderQ", b"folder/"))
    refuses(path, "folder/", "folder with content")


def test_an_encrypted_member_is_refused(tmp_path: Path, require: Callable[[str], str]) -> None:
    (tmp_path / "good").write_bytes(file_of("1.2.3.9"))
    (tmp_path / "bad").write_bytes(IMAGE)
    subprocess.run([require("zip"), "-q", "a.zip", "good"], check=True, cwd=tmp_path)
    subprocess.run([require("zip"), "-q", "-P", "secret", "a.zip", "bad"], check=True, cwd=tmp_path)
    refuses(tmp_path / "a.zip", "bad", "encrypted")


def test_an_archive_that_is_all_encrypted_is_named(tmp_path: Path, require: Callable[[str], str]) -> None:
    (tmp_path / "bad").write_bytes(IMAGE)
    subprocess.run([require("zip"), "-q", "-P", "secret", "a.zip", "bad"], check=True, cwd=tmp_path)
    with pytest.raises(LocalTrouble, match=r"a\.zip is encrypted\. Decrypt it first"):
        judged(tmp_path / "a.zip")


@pytest.mark.parametrize(("method", "why"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")])
def test_a_compression_that_is_not_read_is_refused(tmp_path: Path, method: int, why: str) -> None:
    refuses(made(tmp_path / "a.zip", compress_type=method), "bad", why)


@pytest.mark.parametrize(("method", "why"), [(9, "deflate64"), (77, "method 77"), (99, "encrypted")])
def test_a_method_nobody_knows_is_refused(tmp_path: Path, method: int, why: str) -> None:
    path = made(tmp_path / "a.zip")
    patch(path, last(ENTRY, 10), "<H", lambda _: method)
    refuses(path, "bad", why)


def test_of_members_with_one_name_none_is_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("bad", IMAGE)
        archive.writestr("good", file_of("1.2.3.9"))
        archive.writestr("bad", file_of("1.2.3.5"))
    refuses(path, "bad", "2 members have this name, at octets 0, ")
    _, others, _ = judged(path)
    first, second = (int(word.replace(",", "")) for word in others["bad"][1].split("at octets ")[1].split(", "))
    octets = path.read_bytes()
    assert [octets[at : at + 4] for at in (first, second)] == [LOCAL, LOCAL]


def one_within_another(folder: Path, inside: str) -> Path:
    """An archive of `good`, and of `outside`, whose data is the member `inside`, header and all."""
    inner = zip_of(folder / "inner.zip", {inside: IMAGE}, zipfile.ZIP_STORED).read_bytes()
    (folder / "inner.zip").unlink()
    header = inner[: inner.index(ENTRY)]
    outer = made(folder / "a.zip", "outside", header, compress_type=zipfile.ZIP_STORED)
    octets = outer.read_bytes()
    begin, end = octets.index(ENTRY), octets.index(END)
    entry = bytearray(inner[inner.index(ENTRY) : inner.index(END)])
    struct.pack_into("<I", entry, 42, octets.index(header))
    closing = bytearray(octets[end:])
    struct.pack_into("<HHI", closing, 8, 3, 3, end - begin + len(entry))
    outer.write_bytes(octets[:end] + entry + closing)
    return outer


def test_a_member_within_another_is_refused_with_it(tmp_path: Path) -> None:
    uids, others, _ = judged(one_within_another(tmp_path, "inside"))
    assert uids == ["1.2.3.9"]
    why = "it shares octets with another member"
    assert others == {"inside": ("refused", why), "outside": ("refused", why)}


# what the octets give away


@pytest.mark.parametrize(
    ("field", "form", "why"),
    [
        (8, "<H", "compression or encryption"), (14, "<I", "CRC or size"), (18, "<I", "CRC or size"),
        (22, "<I", "CRC or size"), (30, "<B", "name"), (0, "<B", "no local header"), (6, "<H", "encryption"),
    ],
)  # fmt: skip
def test_a_local_header_that_contradicts_the_directory_is_refused(
    tmp_path: Path, field: int, form: str, why: str
) -> None:
    path = made(tmp_path / "a.zip")
    patch(path, last(LOCAL, field), form, lambda number: number ^ 1)
    refuses(path, "bad", why)


def both(path: Path, local: int, entry: int, change: Callable[[int], int]) -> None:
    """Changes a number in both headers of the last member."""
    patch(path, last(LOCAL, local), "<I", change)
    patch(path, last(ENTRY, entry), "<I", change)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("octets", [IMAGE, file_of("1.2.3.4", octets=300_000)])
def test_a_size_that_lies_is_refused(tmp_path: Path, method: int, octets: bytes) -> None:
    said = {
        -1: "it is stored, and says two sizes" if method == 0 else "it inflates to more octets than it says",
        1: "it is stored, and says two sizes" if method == 0 else "it ends before it has as many octets",
    }
    for by, why in said.items():
        path = made(tmp_path / "a.zip", octets=octets, compress_type=method)
        both(path, 22, 24, lambda size, by=by: size + by)  # type: ignore[misc]
        refuses(path, "bad", why)


def test_a_packed_size_that_lies_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "a.zip")
    both(path, 18, 20, lambda size: size - 1)
    refuses(path, "bad", "its compressed data is cut")
    both(path, 18, 20, lambda size: size // 2)
    refuses(path, "bad", "ends before it has as many octets")
    path = made(tmp_path / "b.zip")
    both(path, 18, 20, lambda size: size + 1)
    refuses(path, "bad", "does not end before the directory begins")


def test_an_offset_beyond_everything_is_refused(tmp_path: Path) -> None:
    for offset in [1 << 40, 1 << 63, (1 << 64) - 1]:
        path = made(tmp_path / "a.zip", extra=struct.pack("<HHQ", 1, 8, offset))
        patch(path, last(ENTRY, 42), "<I", lambda _: 0xFFFFFFFF)
        refuses(path, "bad", "no local header")


def test_a_crc_that_lies_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "a.zip")
    both(path, 14, 16, lambda crc: crc ^ 1)
    refuses(path, "bad", "CRC is wrong")


def hand_made(path: Path, packed: bytes, octets: bytes, *, method: int = 8) -> Path:
    """An archive of `good`, and of a member whose data is given."""
    made(path, octets=packed, compress_type=zipfile.ZIP_STORED)
    patch(path, last(LOCAL, 8), "<H", lambda _: method)
    patch(path, last(ENTRY, 10), "<H", lambda _: method)
    both(path, 14, 16, lambda _: zlib.crc32(octets))
    both(path, 22, 24, lambda _: len(octets))
    return path


def deflated(octets: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(octets) + stream.flush()


def test_compressed_data_that_is_odd_is_refused(tmp_path: Path) -> None:
    good = deflated(IMAGE)
    for packed, why in [
        (good + b"more", "something stands behind its data"),
        (good[:-1], "its compressed data is cut"),
        (good[:-100], "ends before it has as many octets"),
        (b"\xff" * 50, "not compressed as it says"),
        (b"", "ends before it has as many octets"),
    ]:
        refuses(hand_made(tmp_path / "a.zip", packed, IMAGE), "bad", why)
    open_ended = zlib.compressobj(9, zlib.DEFLATED, -15)
    cut = open_ended.compress(IMAGE) + open_ended.flush(zlib.Z_SYNC_FLUSH)
    refuses(hand_made(tmp_path / "a.zip", cut, IMAGE), "bad", "its compressed data is cut")


def test_an_empty_block_behind_the_last_octet_is_no_lie(tmp_path: Path) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = stream.compress(IMAGE) + stream.flush(zlib.Z_FULL_FLUSH) + stream.flush()
    uids, others, _ = judged(hand_made(tmp_path / "a.zip", packed, IMAGE))
    assert (uids, others) == (["1.2.3.4", "1.2.3.9"], {})


# bombs


def test_a_bomb_by_its_own_word_is_refused_unread(tmp_path: Path) -> None:
    path = made(tmp_path / "a.zip", octets=bytes(1 << 20))
    both(path, 22, 24, lambda _: faults.MAX_FREE_OCTETS + 1)
    with pytest.raises(LocalTrouble, match=r"a\.zip is a bomb: it inflates to [0-9,]+ octets from [0-9,]+"):
        judged(path)


def test_a_bomb_among_much_else_is_refused_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MAX_FREE_OCTETS", 10_000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good", file_of("1.2.3.9", octets=50_000))
        archive.writestr("bad", bytes(1 << 20), zipfile.ZIP_DEFLATED)
    refuses(path, "bad", "it is a bomb: 1,048,576 octets from")


def test_many_members_make_a_bomb_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MAX_FREE_OCTETS", 1 << 20)
    path = zip_of(tmp_path / "a.zip", {str(number): bytes(1 << 19) for number in range(3)})
    with pytest.raises(LocalTrouble, match="is a bomb"):
        judged(path)


@pytest.mark.slow
@pytest.mark.parametrize(("octets", "said"), [(200 << 20, 200 << 20), (200 << 20, 1000), (2000 << 20, 1000)])
def test_a_bomb_is_defused_in_little_memory_and_time(tmp_path: Path, octets: int, said: int) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(stream.compress(bytes(1 << 20)) for _ in range(octets >> 20)) + stream.flush()
    crc = 0
    for _ in range(octets >> 20 if said == octets else 0):
        crc = zlib.crc32(bytes(1 << 20), crc)
    path = made(tmp_path / "a.zip", octets=packed, compress_type=zipfile.ZIP_STORED)
    patch(path, last(LOCAL, 8), "<H", lambda _: 8)
    patch(path, last(ENTRY, 10), "<H", lambda _: 8)
    both(path, 14, 16, lambda _: crc)
    both(path, 22, 24, lambda _: said)
    tracemalloc.start()
    begun = time.monotonic()
    uids, others, _ = judged(path)
    elapsed_s = time.monotonic() - begun
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert uids == ["1.2.3.9"]
    assert others["bad"][0] == ("not dicom" if said == octets else "refused")
    assert peak < 8 << 20
    assert elapsed_s < 5


def test_an_archive_within_the_archive_is_named_and_not_entered(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "inner.zip", {"x": IMAGE}).read_bytes()
    path = made(tmp_path / "a.zip", "inner.zip", inner)
    source = Source(path)
    answers, ending = source.find(**keys_of(Level.INSTANCE))
    assert len(answers) == 1
    why = "it is an archive within the archive, which is not entered"
    assert source.others() == {"inner.zip": ("not dicom", why)}
    assert source.skipped == [("inner.zip", why)]
    assert not ending.truncated


@pytest.mark.slow
def test_a_deflated_data_set_that_is_a_bomb_is_defused_too(tmp_path: Path) -> None:
    meta = file_of("1.2.3.4")[: -len(data_set("1.2.3.4"))].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    length = struct.unpack_from("<I", meta, 140)[0] + 2
    meta = meta[:140] + struct.pack("<I", length) + meta[144:]
    uid = meta.index(b"1.2.840.10008.1.2.1.99")
    meta = meta[: uid - 2] + struct.pack("<H", 22) + meta[uid:]
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(stream.compress(bytes(1 << 20)) for _ in range(300)) + stream.flush()
    uids, others, _ = judged(made(tmp_path / "a.zip", octets=meta + bomb))
    assert uids == ["1.2.3.9"]
    assert others["bad"] == ("truncated", "inflates to more than 268435456 octets")


@pytest.mark.slow
def test_a_directory_of_a_million_lies_costs_no_memory(tmp_path: Path) -> None:
    """A process with little room to live in refuses an archive that claims the more the less it has."""
    path = tmp_path / "a.zip"
    with open(path, "wb") as file:
        file.truncate(4 << 30)
        file.seek(4 << 30)
        size = (4 << 30) - 56 - 20 - 22
        large = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1 << 40, 1 << 40, size, 0)
        file.seek(size)
        file.write(large + struct.pack("<4sIQI", b"PK\6\7", 0, size, 1))
        file.write(struct.pack("<4s4H2IH", END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    code = (
        "import sys; from dcmsync.endpoints.zip.reader import Reader; from dcmsync.errors import LocalTrouble\n"
        "try: Reader(sys.argv[1])\nexcept LocalTrouble as trouble: print(trouble)"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))

    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], preexec_fn=limit, capture_output=True, text=True, check=False,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert "more than 1,000,000 members" in done.stdout, done.stderr


# the frame


@pytest.mark.slow
def test_an_archive_cut_anywhere_is_named(tmp_path: Path) -> None:
    octets = made(tmp_path / "whole.zip").read_bytes()
    path = tmp_path / "a.zip"
    for length in range(len(octets)):
        path.write_bytes(octets[:length])
        with pytest.raises(LocalTrouble, match=r"a\.zip cannot be read: it is (cut|no zip archive)"):
            take_stock(str(path), remembering(str(path)))


@pytest.mark.slow
def test_any_octet_that_is_changed_is_noticed_or_harmless(tmp_path: Path) -> None:
    octets = made(tmp_path / "whole.zip").read_bytes()
    path = tmp_path / "a.zip"
    harmless = 0
    for at in range(len(octets)):
        path.write_bytes(octets[:at] + bytes([octets[at] ^ 0x55]) + octets[at + 1 :])
        catalogue = remembering(str(path))
        try:
            take_stock(str(path), catalogue)
        except LocalTrouble:
            continue
        found = {holding.sop_instance_uid for holding in catalogue.holdings()}
        refused = [holding for holding in catalogue.others() if holding.state == "refused"]
        assert len(found) + len(refused) == 2
        harmless += len(found) == 2
    assert harmless < 70  # versions, times, attributes, the directory's names of the spare


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda octets: b"MZ stub" + octets, "not where its end says"),
        (lambda octets: octets + b"more", "no zip|cut"),
        (lambda octets: octets[:-2] + struct.pack("<H", 22) + octets[-22:], "two ways"),
        (lambda octets: b"", "no zip archive"),
        (lambda octets: b"\0" * 100_000, "no zip archive"),
        (lambda octets: octets[:-18] + b"\1" + octets[-17:], "one part of several"),
        (lambda octets: octets[:-14] + b"\7" + octets[-13:], "one part of several"),
        (lambda octets: octets[:-14] + b"\3\0\3\0" + octets[-10:], "directory is broken"),
        (lambda octets: octets[:-14] + b"\1\0\1\0" + octets[-10:], "more than it counts"),
        (lambda octets: octets.replace(ENTRY, b"PK\1\3"), "directory is broken"),
        (lambda octets: octets[: (at := octets.rindex(ENTRY) + 28)] + b"\0\0\3" + octets[at + 3 :], "no name"),
    ],
)
def test_a_frame_that_contradicts_itself_is_named(
    tmp_path: Path, change: Callable[[bytes], bytes], why: str
) -> None:
    path = made(tmp_path / "a.zip")
    before = change(path.read_bytes())
    path.write_bytes(before)
    with pytest.raises(LocalTrouble, match=why):
        judged(path)
    with pytest.raises(LocalTrouble, match=why):
        Shore(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.zip"]


def test_two_ends_of_zip64_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    octets = made(tmp_path / "a.zip").read_bytes()
    end = octets.index(END)
    count, size, offset = struct.unpack_from("<HII", octets, end + 10)
    for said, why in [
        ((count, size, offset), ""),
        ((count + 1, size, offset), "contradict each other"),
        ((count, size - 1, offset + 1), "contradict each other"),
    ]:
        large = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, said[0], *said)
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
        path = tmp_path / "b.zip"
        path.write_bytes(octets[:end] + large + locator + octets[end:])
        if why:
            with pytest.raises(LocalTrouble, match=why):
                judged(path)
        else:
            assert judged(path)[0] == ["1.2.3.4", "1.2.3.9"]
        for field, form, words in [(0, "<B", "zip64 end"), (4, "<Q", "zip64 end"), (64, "<Q", "zip64 end"),
                                   (60, "<I", "one part of several"), (16, "<I", "one part")]:  # fmt: skip
            patch(path, lambda octets, field=field: end + field, form, lambda number: number ^ 1)  # type: ignore[misc]
            with pytest.raises(LocalTrouble, match=words):
                Reader(str(path))
            patch(path, lambda octets, field=field: end + field, form, lambda number: number ^ 1)  # type: ignore[misc]


# hostile archives as destinations


def test_what_is_refused_stays_and_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("1.2.3/1.2.3.4.dcm", IMAGE)
    before = path.read_bytes()
    shore = Shore(path, force=True)
    landed = shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"y"))
    assert (landed.outcome, landed.reason) == ("conflict", "blocked")
    assert shore.bring("1.2.3.5", data_set("1.2.3.5")).outcome == "stored"
    shore.end()
    assert path.read_bytes().startswith(before[: before.index(ENTRY)])
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["1.2.3/1.2.3.4.dcm"] * 2 + ["1.2.3/1.2.3.5.dcm"]


def test_a_member_that_shares_octets_is_never_replaced(tmp_path: Path) -> None:
    shore = Shore(one_within_another(tmp_path, "1.2.3/1.2.3.4.dcm"), force=True)
    assert shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"y")).reason == "blocked"
    shore.end()


def test_a_member_whose_header_lies_is_never_replaced(tmp_path: Path) -> None:
    path = made(tmp_path / "a.zip", "1.2.3/1.2.3.4.dcm")
    patch(path, last(LOCAL, 18), "<I", lambda number: number ^ 1)
    shore = Shore(path, force=True)
    assert shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"y")).reason == "blocked"
    shore.end()
