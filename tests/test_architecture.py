"""The rooms: imports point down only, and every module has its tests."""

import ast
import pathlib

REPOSITORY = pathlib.Path(__file__).parent.parent

# Lower rooms first. A module may import only modules that stand in an earlier line.
ROOMS = (
    ("errors", "shapes"),
    (
        "config",
        "atomic_file",
        "progress",
        "memory",
        "run_lock",
        "stop_signals",
        "saving",
        "exif",
        "intervals",
        "batcher",
        "image_header",
    ),
    ("sealed_json", "event_files", "branches"),
    ("sealed_folder", "data"),
    (
        "preprocessing",
        "folder_builder",
        "metrics",
        "plots",
        "runtime",
        "restructure",
        "preflight",
        "loss_scale",
    ),
    ("models.lstm", "models.batch_norm"),
    ("models.cnn_branch", "models.rnn_branch", "models.fusion", "models.weights_file"),
    ("models", "models.xception_weights", "example_source", "image_check"),
    ("image_index", "builders"),
    ("datasets", "phases", "steps"),
    ("input_pipeline", "checkpoints", "best_weights"),
    ("inference", "run_folder", "feature_cache", "manifest"),
    ("trained", "exported", "scores", "explanations", "summaries", "starting_point", "opening"),
    ("page", "saved_model"),
    ("tables",),
    ("report",),
    (
        "evaluation",
        "data_command",
        "trial",
        "epoch",
        "verify_resume",
        "doctor",
        "reproduce",
        "predict",
        "portable",
    ),
    ("train", "export", "explain", "server"),
    ("serve",),
    ("main",),
)
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}


def modules():
    for path in sorted((REPOSITORY / "cnnrnn").rglob("*.py")):
        name = ".".join(path.relative_to(REPOSITORY / "cnnrnn").with_suffix("").parts)
        name = name.removesuffix(".__init__")
        if name != "__init__":
            yield name, path


def imported(path):
    """The project's own modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("cnnrnn."):
                yield name.removeprefix("cnnrnn.")
            elif name == "data" or name.startswith("data."):
                yield "data"


def test_every_module_has_its_room():
    assert {name for name, _ in modules()} == set(RANK) - {"data"}


def test_imports_point_down_only():
    for name, path in modules():
        for other in imported(path):
            assert other in RANK, f"{name} imports {other}: names from modules are not imported"
            assert RANK[other] < RANK[name], f"{name} imports {other}, which is not below it"


def test_only_config_and_main_know_the_flags():
    for name, path in modules():
        if name not in ("config", "main"):
            assert "from absl" not in path.read_text(encoding="utf-8"), name


def test_data_sets_know_only_the_errors():
    for path in (REPOSITORY / "data").rglob("*.py"):
        if not path.name.endswith("_test.py"):
            names = set(imported(path)) - {"data"}
            assert names <= {"errors"}, path


def test_main_leaves_tensorflow_to_the_commands():
    tree = ast.parse((REPOSITORY / "cnnrnn" / "main.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top for alias in node.names}
    assert not names & {"tensorflow", "train", "evaluation", "data_command"}


def test_files_and_functions_keep_to_their_size():
    for _, path in modules():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 80, f"{path}: {node.name}"
