"""Who may import whom, what a file may be called, and what library code never does: read from the sources.

A module may import from the rows below its own and from its own folder. Between neighbours of one row only the pairs
in SIDEWAYS are allowed, each for a reason; the opposite direction is then a cycle and stays forbidden.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "steerable"

ROWS = (  # lowest first
    {"protocols", "checks", "progress", "sensitivity", "linear", "differences", "files", "shipped"},
    {"checkpoints", "generators", "features", "edits", "controls", "data", "sources", "rendered"},
    {"fitting", "training", "evaluation", "plots", "render", "films", "sampling"},
    {"cards", "doctor", "drawing", "foreign", "hub", "importing", "named", "provenance", "recipe", "store", "zoo"},
    {"cli", "demo", "walking", "scenes", "report", "studio"},
)
SIDEWAYS = {
    ("checks", "protocols"): "checks name the nouns they refuse",
    ("sensitivity", "protocols"): "the local model is one of a generator and a feature",
    ("sensitivity", "checks"): "",
    ("sensitivity", "linear"): "a local model is made of linear maps",
    ("sensitivity", "differences"): "of black boxes too",
    ("differences", "linear"): "which are linear maps as well",
    ("sensitivity", "progress"): "",
    ("shipped", "checks"): "",
    ("controls", "features"): "any callable is a feature, and a ledger carries a perceptual distance",
    ("fitting", "sampling"): "axes are fitted on measured tables",
    ("fitting", "evaluation"): "calibration is a response pass",
    ("sources", "data"): "folders of pictures are read as such",
    ("rendered", "sources"): "rendered heads are a data set",
    ("features", "rendered"): "what is read from heads is what they are drawn from",
    ("training", "render"): "sample grids on the way",
    ("evaluation", "training"): "a walk is judged by the error that it was trained on",
    ("evaluation", "sampling"): "a response is sampled like a table",
    ("plots", "evaluation"): "figures of whole results",
    ("plots", "render"): "drawn as all others are",
    ("store", "importing"): "a generator file may be anybody's",
    ("hub", "importing"): "one cache folder",
    ("store", "hub"): "a control may be an address",
    ("zoo", "hub"): "a generator too",
    ("cards", "hub"): "what is uploaded is fetched there",
    ("cards", "store"): "and stored as a file",
    ("doctor", "importing"): "a program of torch is no checkpoint",
    ("provenance", "importing"): "the layout of anybody's file",
    ("provenance", "zoo"): "licences of what is shipped",
    ("zoo", "store"): "named weights are stored weights",
    ("named", "store"): "a label of your own is a stored feature",
    ("named", "zoo"): "the others are in the zoo",
    ("drawing", "recipe"): "a picture is of a recipe",
    ("drawing", "zoo"): "what measured a strip are features of the zoo",
    ("recipe", "named"): "a recipe says what moves and what is held by name",
    ("recipe", "store"): "a recipe names stored controls",
    ("recipe", "zoo"): "a recipe names a generator of the zoo",
    ("cli", "demo"): "the command line starts the demo",
    ("cli", "walking"): "and the report of walks",
    ("cli", "scenes"): "figure 27 for any edits is one of its scenes",
    ("walking", "scenes"): "the report of walks is made of scenes too",
    ("walking", "report"): "on the same page",
    ("demo", "scenes"): "the demo tells them in order",
    ("demo", "report"): "and puts them on one page",
    ("scenes", "report"): "a scene is made of the page's blocks",
    ("cli", "studio"): "the command line starts the studio, when asked to",
}
BOTTOM = {"torch", "numpy", "jaxtyping", "safetensors", "steerable"}  # what the lowest row may import at all; rich only inside functions
SLOW = {"kornia", "sklearn", "scipy", "matplotlib", "pyarrow", "pandas", "PIL", "torchmetrics", "typer", "rich", "jinja2", "pydantic"}
SLOW |= {"av", "huggingface_hub", "filelock", "accelerate", "tensorboard", "datasets"}
EARLY = {"recipe.py": {"pydantic"}}  # recipes are pydantic's models; the package imports them when one is read or written
NAMELESS = {"util", "utils", "common", "helper", "helpers", "base", "config", "core", "misc"}
DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial"}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def part(name: str) -> str:
    """``features`` of ``steerable.features.faces``."""
    return name.split(".")[1] if "." in name else ""


def home(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path, tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every import below ``tree``, absolute, with its line: ``from steerable import zoo`` is ``steerable.zoo``."""
    package = ("steerable", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join((*parents, *([node.module] if node.module else [])))
            if source == "steerable":
                yield from ((f"steerable.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield source, node.lineno


def at_import(path: Path) -> Iterator[tuple[str, int]]:
    """The imports that run when the module is imported: not those inside functions or for type checkers only."""
    waiting: list[ast.AST] = [parsed(path)]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from imports(path, ast.Module(body=[node], type_ignores=[]))
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not for_type_checkers(node):
                waiting.append(node)


def for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def row(name: str) -> int:
    found = [i for i, names in enumerate(ROWS) if name in names]
    assert found, f"{name} stands in no row of test_layers.ROWS: give it one"
    return found[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_from_below(path):
    here = home(path)
    wrong = [
        f"line {line}: {name}"
        for name, line in imports(path, parsed(path))
        if name.startswith("steerable.")
        and (there := part(name)) != here
        and row(there) >= row(here)
        and ((here, there) not in SIDEWAYS or row(there) > row(here))
    ]
    assert not wrong, f"{here} may not import from its own row or above: {wrong}"


def test_no_two_neighbours_import_each_other():
    assert not [(a, b) for a, b in SIDEWAYS if (b, a) in SIDEWAYS]


@pytest.mark.parametrize("path", [p for p in modules() if home(p) in ROWS[0]], ids=lambda path: path.name)
def test_the_lowest_row_needs_little_more_than_torch(path):
    allowed = BOTTOM | set(sys.stdlib_module_names)
    late = {name.split(".")[0] for name, _ in imports(path, parsed(path))} - allowed - {"rich"}
    early = {name.split(".")[0] for name, _ in at_import(path)} - allowed
    assert not late | early


@pytest.mark.parametrize("path", [p for p in modules() if home(p) not in ROWS[-1]], ids=lambda path: str(path.relative_to(SOURCE)))
def test_slow_libraries_are_imported_inside_functions(path):
    slow = SLOW - EARLY.get(path.name, set())
    assert not [f"line {line}: {name}" for name, line in at_import(path) if name.split(".")[0] in slow]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_name_says_something(path):
    assert not NAMELESS & {name.removesuffix(".py").strip("_") for name in path.relative_to(SOURCE).parts}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_random_numbers_come_from_a_generator_of_the_caller(path):
    """No seeding of torch's, numpy's or Python's global generator, and no draw without ``generator=``."""
    wrong = []
    for node in ast.walk(parsed(path)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        if "manual_seed" in name and owner.split(".")[0] == "torch" and "Generator" not in owner:
            wrong.append(f"line {node.lineno}: {owner}.{name}")
        if name == "seed" and owner in {"torch", "random", "np.random", "numpy.random"}:
            wrong.append(f"line {node.lineno}: {owner}.{name}")
        if owner == "torch" and (
            (name in DRAWS and "generator" not in {k.arg for k in node.keywords}) or name in {"rand_like", "randn_like"}
        ):
            wrong.append(f"line {node.lineno}: {owner}.{name} without generator=")
    assert not wrong


@pytest.mark.parametrize("path", [p for p in modules() if home(p) not in ROWS[-1]], ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_command_line_prints(path):
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert not [f"line {node.lineno}" for node in calls if node.func.id == "print"]


def test_the_command_line_starts_without_torch(project):
    """``steer --help`` has to answer at once."""
    seen = "import sys, steerable.cli; print(sorted({'torch', 'sklearn', 'scipy', 'matplotlib', 'kornia', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", seen], cwd=project / "src", capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_package_imports_without_the_slow_libraries(project):
    seen = f"import sys, steerable; print(sorted({SLOW!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", seen], cwd=project / "src", capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
