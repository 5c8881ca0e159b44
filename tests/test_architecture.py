"""The structure of the program: import order, flags, sizes, signatures, tests of each module."""

import ast
import functools
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import helpers

PACKAGE = helpers.REPOSITORY / "cnnrnn"
# Lowest first. A module imports only from its own package and from earlier lines.
ORDER = (
    ("errors", "shapes"),
    ("settings", "data"),
    ("config", "system", "metrics"),
    ("preprocessing",),
    ("models", "datasets"),
    ("phases",),
    ("runs",),
    ("evaluation", "export"),
    ("training",),
    ("gpu_check",),
    ("serving",),
    ("commands",),
    ("main",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
# Packages that import nothing of the program but these.
ISOLATED = {"serving": set(), "data": {"errors"}}
WITHOUT_TENSORFLOW = (
    "cnnrnn.main",
    "cnnrnn.config",
    "cnnrnn.commands.check_gpu",
    "cnnrnn.commands.cluster",
    "cnnrnn.commands.preflight",
    "cnnrnn.training.cost",
)
# Modules that are tested through another one: the test module, below tests/.
TESTED_IN = {
    "commands.explain": "commands/test_predict.py",
    "data.tiny_imagenet_100.dummy": "data/test_original_layout.py",
    "data.tiny_imagenet_100.original_layout": "data/test_original_layout.py",
    "data.tiny_imagenet_100.sources": "data/test_original_layout.py",
    "datasets.class_folders": "datasets/test_image_folder.py",
    "datasets.example_source": "datasets/test_dataset.py",
    "datasets.splits": "datasets/test_dataset.py",
    "errors": "test_main.py",
    "evaluation.tensorboard": "commands/test_evaluate.py",
    "evaluation.thumbnails": "evaluation/test_charts.py",
    "export.bundle": "commands/test_export.py",
    "export.keras_and_litert": "commands/test_export.py",
    "gpu_check.command_line": "commands/test_check_gpu.py",
    "gpu_check.determinism": "gpu_check/test_measurements.py",
    "gpu_check.input_images": "gpu_check/test_measurements.py",
    "gpu_check.installation": "gpu_check/test_measurements.py",
    "gpu_check.lstm_kernels": "gpu_check/test_measurements.py",
    "gpu_check.measurement": "gpu_check/test_measurements.py",
    "gpu_check.replicas": "gpu_check/test_measurements.py",
    "gpu_check.session": "gpu_check/test_measurements.py",
    "gpu_check.training_steps": "gpu_check/test_measurements.py",
    "models.cnn_branch": "models/test_network.py",
    "models.rnn_branch": "models/test_network.py",
    "models.weights_file": "models/test_xception_weights.py",
    "preprocessing.random_keys": "preprocessing/test_augmentation.py",
    "runs.identity": "runs/test_run_folder.py",
    "settings.ablation": "test_config.py",
    "settings.augmentation": "test_config.py",
    "settings.cluster": "test_config.py",
    "settings.averaging": "test_config.py",
    "settings.data": "test_config.py",
    "settings.evaluation": "test_config.py",
    "settings.fields": "test_config.py",
    "settings.finetuning": "test_config.py",
    "settings.image_sizes": "test_config.py",
    "settings.network": "test_config.py",
    "settings.optimization": "test_config.py",
    "settings.paths": "test_config.py",
    "settings.prediction": "test_config.py",
    "settings.rate_search": "test_config.py",
    "settings.run": "test_config.py",
    "settings.serving": "test_config.py",
    "settings.training": "test_config.py",
    "settings.verification": "test_config.py",
    "shapes": "models/test_network.py",
    "system.scheduler": "system/test_cluster.py",
    "system.shared_folder": "system/test_workers.py",
    "training.epoch_result": "training/test_trainer.py",
    "training.feature_rows": "training/test_feature_cache.py",
    "training.loss_scale": "training/test_precision.py",
    "training.tensorboard": "training/test_trainer.py",
    "training.phase_features": "training/test_trainer_options.py",
    "training.recorder": "training/test_trainer.py",
    "training.stopping": "training/test_trainer_options.py",
    "training.train_state": "training/test_steps.py",
}
# Functions with more than six parameters, and why.
LONG_SIGNATURES = {"runs.best_weights.save": "all that its record says of the weights"}
# Files with more than MAX_FILE_LINES lines, and why.
LONG_FILES = {"training.trainer": "one class, which owns the state of the training loop"}
MAX_PARAMETERS = 6
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 80


@functools.cache  # and not at import, which each process of pytest-xdist does
def modules() -> tuple[tuple[str, pathlib.Path, ast.Module], ...]:
    """(dotted name below cnnrnn, path, syntax tree) of each module; data/ is below cnnrnn, too."""
    return tuple(_modules())


def _modules() -> Iterator[tuple[str, pathlib.Path, ast.Module]]:
    for folder in (PACKAGE, helpers.REPOSITORY / "data"):
        for path in sorted(folder.rglob("*.py")):
            if path.name.endswith("_test.py"):
                continue
            root = PACKAGE if folder == PACKAGE else helpers.REPOSITORY
            if root == PACKAGE and path.is_relative_to(PACKAGE / "data"):
                continue  # the symbolic link to data/
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            if name != "__init__":
                tree = ast.parse(path.read_text(encoding="utf-8"))
                yield name.removesuffix(".__init__"), path, tree


def names() -> set[str]:
    return {name for name, _, _ in modules()}


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules of the program, and names in them, that are imported anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("cnnrnn.") for name in names if name.startswith("cnnrnn."))


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """(qualified name, definition) of each function and method."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{prefix}{child.name}", child
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            yield from walk(child, f"{prefix}{child.name}." if named else prefix)

    return walk(tree, "")


def test_every_package_has_its_place_in_the_order():
    assert {name.split(".")[0] for name in names()} == set(RANK)


def test_imports_follow_the_order_of_the_packages():
    for name, _, tree in modules():
        package = name.split(".")[0]
        for imported in imports(tree):
            other = imported.split(".")[0]
            assert other == package or RANK[other] < RANK[package], f"{name} imports {imported}"


@pytest.mark.parametrize("package", ISOLATED)
def test_isolated_packages_import_nothing_else_of_the_program(package):
    for name, _, tree in modules():
        if name.split(".")[0] == package:
            others = {imported.split(".")[0] for imported in imports(tree)} - {package}
            assert others <= ISOLATED[package], name


def test_modules_are_imported_and_not_names():
    known = names()
    for name, _, tree in modules():
        for imported in imports(tree):
            assert imported in known or imported in RANK, f"{name} imports {imported}"


def test_only_config_and_main_use_absl_flags():
    for name, path, _ in modules():
        if name not in ("config", "main"):
            assert "absl import flags" not in path.read_text(encoding="utf-8"), name


def test_modules_that_must_start_fast_do_not_import_tensorflow():
    code = "import sys; import " + ", ".join(WITHOUT_TENSORFLOW)
    code += "; print({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, cwd=helpers.REPOSITORY, text=True) == "set()\n"


def test_every_package_states_its_charter():
    for path in PACKAGE.glob("*/__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        if path.parent.name != "data":
            assert len(tree.body) == 1, f"{path} has code"


def test_every_module_has_a_test_module():
    tests = helpers.REPOSITORY / "tests"
    without = set()
    for name, path, _ in modules():
        package, _, module = name.rpartition(".")
        mirrored = tests / package.replace(".", "/") / f"test_{module}.py"
        beside = path.with_name(f"{path.stem}_test.py")  # of data sets, as `tfds new` places it
        if path.name != "__init__.py" and not mirrored.exists() and not beside.exists():
            without.add(name)
    assert without == set(TESTED_IN)  # an entry of a module with a test module is out of date
    for name, file in TESTED_IN.items():
        assert (tests / file).exists(), name


def test_functions_have_few_parameters():
    long = set()
    for name, _, tree in modules():
        for function, node in functions(tree):
            arguments = node.args
            count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
            is_method = bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
            if count - is_method > MAX_PARAMETERS:
                long.add(f"{name}.{function}")
    assert long <= set(LONG_SIGNATURES)


def test_files_and_functions_are_short():
    long = set()
    for name, path, tree in modules():
        if len(path.read_text(encoding="utf-8").splitlines()) > MAX_FILE_LINES:
            long.add(name)
        for function, node in functions(tree):
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{name}.{function}"
    assert long <= set(LONG_FILES)
