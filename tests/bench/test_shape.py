"""What docs/architecture.md says of the shape of `bench`."""

import ast
from pathlib import Path

import grimp
import pytest

import bench
from bench.agents import AGENTS

SOURCE = Path(bench.__file__).parent


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("bench", include_external_packages=False, cache_dir=None)
    waiting = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    assert len(waiting) > 200
    # What imports nothing that is left can be taken away, until a cycle remains.
    while ready := {name for name, imported in waiting.items() if not imported & waiting.keys()}:
        for name in ready:
            del waiting[name]
    assert waiting == {}


def test_no_module_below_the_command_line_knows_it() -> None:
    graph = grimp.build_graph("bench", include_external_packages=False, cache_dir=None)
    importers = {
        name
        for module in graph.find_descendants("bench.cli") | {"bench.cli"}
        for name in graph.find_modules_that_directly_import(module)
        if not name.startswith("bench.cli")
    }
    assert importers == {"bench.__main__"}


def test_functions_stay_short(capsys: pytest.CaptureFixture[str]) -> None:
    """Docstrings aside: a function of many documented arguments may be short."""
    lengths = {
        f"{path.relative_to(SOURCE)}:{node.name}": _lines(node) - _docstring_lines(node)
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(lengths) > 1000
    longest = max(lengths, key=lengths.__getitem__)
    print(longest, lengths[longest])
    assert lengths[longest] <= 60, longest


def _lines(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def _docstring_lines(node: ast.FunctionDef) -> int:
    return _lines(node.body[0]) if ast.get_docstring(node) else 0


def test_nothing_outside_the_agents_reads_a_setting_by_a_name_in_quotes() -> None:
    settings = {name for entry in AGENTS.values() for name in entry.settings}
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        if "agents" not in path.relative_to(SOURCE).parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr")
        and isinstance(node.args[1], ast.Constant)
        and node.args[1].value in settings
    ]
    assert found == []
