"""Rules for imports that `lint-imports` does not check, and type hints on every public function."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "colabcnn"
MODULES = sorted(PACKAGE.rglob("*.py"))
# These modules import Keras lazily or never; `drive` runs in a process that must start quickly.
WITHOUT_KERAS = (
    "experiments",
    "store",
    "data",
    "drive",
    "viewing",
    "sharing",
    "sweeps",
    "cli",
    "verbs",
    "colab",
    "notebook",
)


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_imports_names_from_the_package_itself(path):
    """`from colabcnn import run` inside the library would hide the module and trigger a lazy import."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "colabcnn":
            for name in (alias.name for alias in node.names):
                assert (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir(), f"line {node.lineno}: {name}"


def test_folders_reexport_nothing():
    for path in PACKAGE.glob("*/__init__.py"):
        assert not ast.parse(path.read_text(encoding="utf-8")).body[1:], f"{path} holds more than a docstring"


def test_modules_without_keras_import_neither_keras_nor_a_backend():
    names = [module_name(path) for path in MODULES if path.relative_to(PACKAGE).parts[0].split(".")[0] in WITHOUT_KERAS]
    assert len(names) > len(WITHOUT_KERAS)
    code = f"import importlib, sys; [importlib.import_module(name) for name in {names!r}];"
    code += "print([name for name in ('keras', 'tensorflow', 'jax', 'google.colab') if name in sys.modules])"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "[]"


def public_functions(body):
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_public_functions_have_type_hints(path):
    for function in public_functions(ast.parse(path.read_text(encoding="utf-8")).body):
        args = function.args
        arguments = [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]
        untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        assert not untyped, f"line {function.lineno}: {function.name} has no hint for {', '.join(untyped)}"
        assert function.returns or function.name == "__init__", f"line {function.lineno}: {function.name} returns what?"
