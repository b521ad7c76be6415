"""Files import each other in one direction only."""

from graphlib import TopologicalSorter

import grimp


def test_no_file_imports_itself_by_a_detour() -> None:
    """As import-linter's contract, with packages' own files and their children told apart."""
    graph = grimp.build_graph("prunebench", cache_dir=None)
    imports = {file: graph.find_modules_directly_imported_by(file) for file in graph.modules}
    assert len(imports) > 100
    TopologicalSorter(imports).prepare()  # a CycleError names the circle
