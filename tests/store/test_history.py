"""`history.csv` holds one row an epoch, and reading returns the same floats."""

import math

import pytest

from colabcnn.errors import Error
from colabcnn.store.history import best_of, empty_history, newest_in_words, read_history, write_history
from support.runs import history_of


def test_history_is_read_as_written_to_the_last_bit(tmp_path):
    history = history_of(0.1, 0.30000000000000004)
    write_history(tmp_path / "history.csv", history)
    assert read_history(tmp_path / "history.csv") == history
    first = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert first == "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds"


def test_best_epoch_is_the_first_of_equal_ones():
    assert best_of(history_of(0.1, 0.5, 0.3, 0.5)) == (2, 0.5)


@pytest.mark.parametrize("text", ["epoch,loss\n1,0.5\n", "an HTML page\nand more\n", "epoch\nfirst\n"])
def test_error_for_an_invalid_file_names_the_line(tmp_path, text):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(Error, match="line 2"):
        read_history(tmp_path / "history.csv")


def test_error_for_a_missing_file_names_the_file(tmp_path):
    with pytest.raises(Error, match=r"history.csv cannot be read \(No such file"):
        read_history(tmp_path / "history.csv")


def test_nan_is_best_only_where_there_is_nothing_else():
    assert best_of(history_of(math.nan, 0.5, 0.4)) == (2, 0.5)
    assert best_of(history_of(math.nan))[0] == 1


def test_newest_epoch_in_words():
    assert newest_in_words(history_of(0.5, 0.4), 9) == "epoch 2 of 9, validation 0.4000, best 0.5000"
    assert newest_in_words(empty_history(), 9) == ""
