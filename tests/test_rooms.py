"""The floor plan, where import-linter cannot say it: doors for libraries, the wall of 600 lines, docstrings, open()."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "dcmsync"
FILES = sorted(PACKAGE.rglob("*.py"))
WALL = 600

# A library or a module that costs, or that decides where things may happen -> the files that may import it.
DOORS = {
    "pynetdicom": {"wire/upperlayer/codec.py", "wire/dimse/status.py"},
    "pydicom": {"wire/dataset.py"},
    "rich": {"cli/terminal.py"},
    "sqlite3": {"cache/store.py", "cache/schema.py", "node/index.py"},
    "tomllib": {"toml.py"},
    "platformdirs": {"config.py"},
    "ssl": {"net/tls.py"},
    "xml": {"wire/markup.py"},
    "aiohttp": {"net/http.py", *(path.relative_to(PACKAGE).as_posix() for path in FILES if path.parent.name == "web")},
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports by relative name"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_stays_below_the_wall(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= WALL


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_says_what_it_owns(path: Path) -> None:
    is_empty_room = path.name == "__init__.py" and not path.read_text(encoding="utf-8").strip()
    assert is_empty_room or ast.get_docstring(parsed(path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_library_enters_at_its_door(path: Path) -> None:
    roots = {name.partition(".")[0] for name in imports_of(path)}
    for library, doors in DOORS.items():
        assert library not in roots or name_of(path) in doors, f"{name_of(path)} imports {library}"


@pytest.mark.parametrize("path", [p for p in FILES if name_of(p).startswith(("wire/", "plan/"))], ids=name_of)
def test_who_decides_or_speaks_opens_no_file(path: Path) -> None:
    nodes = list(ast.walk(parsed(path)))
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"open", "print", "input"}
    assert not [node for node in nodes if isinstance(node, (ast.Await, ast.AsyncFunctionDef))]


@pytest.mark.parametrize("path", [p for p in FILES if name_of(p).startswith("wire/")], ids=name_of)
def test_wire_knows_errors_and_nothing_else_of_ours(path: Path) -> None:
    ours = {name for name in imports_of(path) if name.startswith("dcmsync.")}
    assert all(name.startswith(("dcmsync.wire", "dcmsync.errors")) for name in ours), ours


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_standard_streams_belong_to_the_front_door(path: Path) -> None:
    used = {
        node.attr
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys"
    }
    if not name_of(path).startswith("cli/"):
        assert not used & {"stdin", "stdout", "stderr", "argv"}


@pytest.mark.parametrize("path", [p for p in FILES if name_of(p).startswith("endpoints/")], ids=name_of)
def test_places_never_import_each_other(path: Path) -> None:
    room = path.relative_to(PACKAGE / "endpoints").parts[0]
    own = f"dcmsync.endpoints.{room.removesuffix('.py')}"
    places = {f"{name}." for name in imports_of(path) if name.startswith("dcmsync.endpoints.")}
    places -= {"dcmsync.endpoints.Setting."}  # how places are opened belongs to the table of places
    assert room == "__init__.py" or all(name.startswith(f"{own}.") for name in places)
