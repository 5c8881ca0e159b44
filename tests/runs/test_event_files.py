"""Event files of a resumed run: no point twice, none lost."""

import tensorflow as tf

from cnnrnn.runs import event_files


def write(folder, *steps, tag="loss"):
    writer = tf.summary.create_file_writer(str(folder), filename_suffix=f".{steps[0]}")
    with writer.as_default():
        for step in steps:
            tf.summary.scalar(tag, step / 2, step=step)
    writer.close()


def steps_in(folder):
    return [step for _, step, _ in event_files.scalars(folder)]


def test_points_after_the_checkpoint_are_removed(tmp_path):
    write(tmp_path, 1, 2, 3, 4)
    write(tmp_path, 5, 6)
    event_files.keep_only(tmp_path, lambda tag, step: step <= 3)
    assert steps_in(tmp_path) == [1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 1  # a file without points is deleted
    write(tmp_path, 4, 5)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5]


def test_a_file_that_loses_nothing_is_not_rewritten(tmp_path):
    write(tmp_path, 1, 2)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_ino, path.stat().st_mtime_ns
    event_files.keep_only(tmp_path, lambda tag, step: True)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before


def test_an_incomplete_record_of_a_killed_process_is_removed(tmp_path):
    write(tmp_path, 1, 2, 3)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    event_files.keep_only(tmp_path, lambda tag, step: True)
    assert steps_in(tmp_path) == [1, 2]
    assert len(list(tf.data.TFRecordDataset(str(path)))) == 3  # with the version of the format


def test_each_tag_has_its_own_limit(tmp_path):
    write(tmp_path, 5, tag="batch_loss")
    write(tmp_path, 6, tag="loss")
    event_files.keep_only(tmp_path, lambda tag, step: step <= 5 or tag == "loss")
    assert event_files.scalars(tmp_path) == [("batch_loss", 5, 2.5), ("loss", 6, 3.0)]


def test_a_missing_folder_is_empty(tmp_path):
    event_files.keep_only(tmp_path / "none", lambda tag, step: True)
    assert event_files.scalars(tmp_path / "none") == []
