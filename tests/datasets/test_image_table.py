"""Data sets that .csv and .jsonl files list: formats, splits, and refused lines."""

import csv
import json
import os

import pytest

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.commands import doctor
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import image_table
from tests import helpers


def listed(images, split=True):
    """(path relative to images/.., label, split) of all images, in an order that is not theirs."""
    rows = [
        (path.relative_to(images.parent).as_posix(), path.parent.name, path.parent.parent.name)
        for path in sorted(images.rglob("*.png"), key=lambda path: path.read_bytes())
    ]
    return rows if split else [row[:2] for row in rows]


def write_csv(path, rows, header=("path", "label", "split"), encoding="utf-8", **options):
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, **options).writerows([header[: len(rows[0])], *rows])
    return path


def write_jsonl(path, rows):
    names = ("path", "label", "split")
    lines = [json.dumps(dict(zip(names, row, strict=False)) | {"width": 3}) for row in rows]
    path.write_text("\n".join(lines) + "\n\n")
    return path


def load(dataset, **settings):
    return dataset_lib.load(config_lib.Config.of(dataset=str(dataset), **settings))


@pytest.fixture
def table(images):
    """Writes lines below the header path,label,split; the images are at the relative paths."""

    def write(text, name="table.csv"):
        path = images.parent / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "kind", ["csv", "semicolons", "tabs", "byte order mark", "jsonl", "absolute"]
)
def test_the_same_images_in_a_table_are_the_same_data_set(images, kind):
    root, rows = images.parent, listed(images)
    if kind == "jsonl":
        path = write_jsonl(root / "table.jsonl", rows)
    elif kind == "semicolons":
        path = write_csv(root / "table.csv", rows, ("Path", " label", "SPLIT"), delimiter=";")
    elif kind == "tabs":
        path = write_csv(root / "table.csv", rows, delimiter="\t")
    elif kind == "byte order mark":
        path = write_csv(root / "table.CSV", rows, encoding="utf-8-sig", quoting=csv.QUOTE_ALL)
    elif kind == "absolute":
        (root / "elsewhere").mkdir()
        rows = [(str(root / path), *row) for path, *row in rows]
        path = write_csv(root / "elsewhere" / "table.csv", rows)
    else:
        rows = [(*row, "more") for row in rows]
        path = write_csv(root / "table.csv", rows, ("path", "label", "split", "other"))
    data, folders = load(path), load(images)
    assert data.fingerprint == folders.fingerprint and data.class_names == folders.class_names
    assert not data.split_here
    assert [data.train.path(i) for i in range(18)] == [folders.train.path(i) for i in range(18)]


def test_without_a_split_the_images_are_divided_as_those_of_a_tree(tmp_path):
    root = helpers.write_classes(tmp_path / "tree", 5)
    rows = [(f"tree/{path.parent.name}/{path.name}", path.parent.name) for path in root.rglob("*g")]
    data = load(write_csv(tmp_path / "table.csv", rows), validation_fraction=0.4)
    assert data.split_here and data.fingerprint == load(root, validation_fraction=0.4).fingerprint
    empty = [(*row, "") for row in rows]
    empty = load(write_csv(tmp_path / "table.csv", empty), validation_fraction=0.4)
    assert empty.split_here and empty.fingerprint == data.fingerprint


def test_names_of_splits_and_labels_that_are_numbers(images):
    numbers = {"black": 0, "gray": 1.5, "white": 2}
    names = {"train": ["Train", "training", None], "val": ["val", "VALID", "validation"]}
    rows = [
        (path, numbers[label], names[split][i % 3])
        for i, (path, label, split) in enumerate(listed(images))
    ]
    data = load(write_jsonl(images.parent / "table.jsonl", rows))
    assert data.class_names == ("0", "1.5", "2")
    assert data.fingerprint == load(images).fingerprint


def test_lines_of_a_test_split_validate_only_if_no_others_do(images, capsys):
    rows = [(path, label, split.replace("val", "test")) for path, label, split in listed(images)]
    path = write_csv(images.parent / "table.csv", rows)
    assert load(path).fingerprint == load(images).fingerprint
    validating = next(row for row in rows if row[2] == "test")
    rows[rows.index(validating)] = (*validating[:2], "val")
    assert len(load(write_csv(path, rows)).validation) == 1
    assert "note: 8 lines of" in capsys.readouterr().out


def test_repeated_lines_are_read_once(images, capsys):
    rows = listed(images)
    path = write_csv(images.parent / "table.csv", [*rows, *rows[:2]])
    assert load(path).fingerprint == load(images).fingerprint
    assert "repeats 2 image(s)" in capsys.readouterr().out


HEADER = "path,label,split\n"
GOOD = "images/train/black/black_00.png,black,\nimages/train/gray/gray_00.png,gray,\n"


@pytest.mark.parametrize(
    "text, message",
    [
        ("path,class\n" + GOOD, "line 1: the header lacks the column 'label'.*path, class"),
        ("path,label,Label\n", "line 1: the header has 'label' twice"),
        ("", "is empty"),
        (HEADER + GOOD + "images/val/gray/gray_00.png,,\n", "line 4: has no label"),
        (HEADER + GOOD + "\n,gray,\n", "line 5: has no path"),
        (HEADER + GOOD + 'x.png,"gr\nay",\n', "line [45]: has a label with a line break"),
        (HEADER + GOOD + "no.png,gray,\n", "line 4: there is no file .*no.png: paths are relative"),
        (HEADER + GOOD.split("\n")[0], r"class\(es\) .only 'black'.: a classifier needs"),
        (HEADER + GOOD + "images/val/gray/gray_00.png,gray,dev\n", "line 4: has split='dev'"),
        (
            HEADER + GOOD + "images/val/white/white_00.png,white,val\n",
            "line 4: the class 'white' has validation images, but no training images",
        ),
        (
            HEADER + GOOD + "images/train/../train/gray/gray_00.png,black,\n",
            "line 4: .*gray_00.png has the label 'black', but 'gray' in line 3",
        ),
        (HEADER + 'x.png,"a\n' + GOOD, "line 2: is not valid CSV"),
        (HEADER + GOOD + "x.png,Smith, John,\n", "line 4: has 4 values, but the header has 3"),
        ((HEADER + GOOD).encode() + b"\xe9.png,gray,\n", "line 4: is not UTF-8"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_line(table, text, message):
    with pytest.raises(errors.UsageError, match=rf"table.csv\W.*{message}|table.csv {message}"):
        load(table(text))


def test_a_class_that_is_stored_in_two_ways_is_noted(table, capsys):
    text = f"{HEADER}{GOOD}images/val/gray/gray_00.png,Gray,val\n"
    with pytest.raises(errors.UsageError, match="'Gray' has validation images, but no training"):
        load(table(text))
    assert "differ only in letter case" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"path": "x.png", "label"', "is not valid JSON"),
        ("[1]", "is not a JSON object"),
        ('{"path": "x.png"}', "lacks 'label'"),
        ('{"path": "x.png", "label": null}', "lacks 'label'"),
        ('{"path": "x.png", "label": true}', "has label=true: expected a text or a number"),
        ('{"path": "x.png", "label": NaN}', "has label=NaN"),
        ('{"path": 3, "label": "a"}', "has path=3: expected a text"),
        ('{"path": "x.png", "label": "a", "split": 1}', "has split=1: expected a text"),
        ('{"path": "x\\u0000.png", "label": "a"}', "has no path"),
        ('{"path": "x\\ud83d.png", "label": "a"}', "has half a surrogate pair"),
        ('{"path": "x.png", "label": "\\ud83d"}', "has half a surrogate pair"),
    ],
)
def test_a_wrong_line_of_json_is_refused(table, line, message):
    with pytest.raises(errors.UsageError, match=f"table.jsonl, line 2: {message}"):
        load(table(f"\n{line}\n", "table.jsonl"))


def test_images_of_lines_that_are_not_used_may_be_missing(tmp_path, table):
    lines = "path,label,split\na.png,x,train\nb.png,y,train\na.png,x,val\ngone.png,y,test\n"
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    path = tmp_path / "own.csv"
    path.write_text(lines)
    built = image_table.build(path)
    assert [len(built.examples(split)) for split in ("train", "validation")] == [2, 1]
    path.write_text(lines.replace("gone.png,y,test", "a.png,x,test").replace("b.png", "gone.png"))
    assert len(image_table.build(path, is_test=True).examples("train")) == 1
    # Of the training images of a class, all may be missing: the lines are the problem.
    lines = "path,label,split\na.png,x,train\nb.png,y,train\ngone.png,z,train\nc.png,z,val\n"
    path.write_text(lines)
    (tmp_path / "c.png").touch()
    problems = []
    built = image_table.build(path, problems.append)
    assert len(problems) == 1 and len(built.examples("validation")) == 0


def test_a_missing_table_and_class_separator_are_refused(tmp_path, table):
    with pytest.raises(errors.UsageError, match="none.csv does not exist"):
        load(tmp_path / "none.csv")
    with pytest.raises(errors.UsageError, match="--class_separator=/ is for folders"):
        load(table(HEADER + GOOD), class_separator="/")


def test_images_that_do_not_exist_can_be_skipped(images, capsys):
    rows = [*listed(images), ("images/none.png", "black", "train")]
    data = load(write_csv(images.parent / "table.csv", rows), bad_images="skip")
    assert data.fingerprint == load(images).fingerprint
    assert "none.png (class 'black') cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("good", [GOOD, ""])
def test_doctor_lists_all_problems(table, tmp_path, good):
    path = table(
        HEADER + "no.png,gray,\nneither.png,gray,\nimages/val/gray/gray_00.png,,\n"
        'images/val/gray/gray_00.png,gray,dev\nx.png,"a"b,\n' + good
    )
    settings = config_lib.Config.of(dataset=str(path), runs_dir=str(tmp_path), run="d")
    with pytest.raises(errors.RunError, match="cannot be trained on"):
        doctor.run((), settings)
    findings = json.loads((tmp_path / "d" / "doctor.json").read_text())["findings"]
    bad = [finding for finding in findings if finding["bad"]]
    assert {finding["kind"] for finding in bad} == {"table"}
    for line, why in ((2, "no.png"), (3, "neither"), (4, "no label"), (5, "dev"), (6, "CSV")):
        (text,) = [f["why"] for f in bad if f"{path}, line {line}:" in f["why"]]
        assert why in text
    assert len(bad) == 5 + (good == "")  # without images there is no class, either


def test_links_in_paths_are_not_resolved(images):
    """The order of the images depends on the paths as they are listed."""
    os.symlink(images, images.parent / "link")
    rows = [(path.replace("images", "link"), *row) for path, *row in listed(images)]
    builder = image_table.build(write_csv(images.parent / "table.csv", rows))
    assert all("/link/" in path for path, _ in builder.examples("train"))


def test_paths_that_lead_out_of_a_linked_folder_are_those_of_the_system(images, tmp_path):
    lists = tmp_path / "elsewhere" / "lists"
    lists.mkdir(parents=True)
    images.rename(lists.parent / "images")
    rows = [(f"../images/train/{name}/{name}_00.png", name, "") for name in helpers.CLASSES]
    write_csv(lists / "table.csv", rows)
    (tmp_path / "link").symlink_to(lists)
    builder = image_table.build(tmp_path / "link" / "table.csv")
    assert len(builder.examples("train")) == 3


def test_the_path_of_an_image_may_lead_through_a_link_and_back(images, tmp_path):
    """To the system `link/..` is the folder above the link's target; as text, another one."""
    (tmp_path / "disk/data").mkdir(parents=True)
    images.rename(tmp_path / "disk/images")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/data").symlink_to(tmp_path / "disk/data")
    files = [f"images/train/{name}/{name}_00.png" for name in helpers.CLASSES]
    for file in files:
        decoy = tmp_path / "lists" / file
        decoy.parent.mkdir(parents=True)
        decoy.write_bytes(b"another image")
    rows = [
        (f"data/../{file}", name, "") for file, name in zip(files, helpers.CLASSES, strict=True)
    ]
    write_csv(tmp_path / "lists/table.csv", rows)
    builder = image_table.build(tmp_path / "lists/table.csv")
    found = [path for path, _ in builder.examples("train")]
    assert found == [str((tmp_path / "disk" / file).resolve()) for file in files]
