"""Study of false pairs: what is read of apt's lists, and how pairs are broken."""

import numpy as np
import pytest

from experiments.denoising import prepare, translations

ENGLISH = """Package: nano
Description-md5: a1
Description-en: small, friendly text editor
 GNU nano is an easy-to-use text editor.

Package: nano-tiny
Description-md5: b2
Description-en: small, friendly text editor

Package: ed
Description-md5: c3
Description-en: classic UNIX line editor
"""
GERMAN = """Package: nano
Description-md5: a1
Description-de: Kleiner, benutzerfreundlicher Texteditor
 GNU nano ist ein leicht zu bedienender Texteditor.

Package: ed
Description-md5: c3
Description-de: classic UNIX line editor

Package: gone
Description-md5: d4
Description-de: Etwas anderes
"""


def test_only_translated_first_lines_are_pairs():
    found = prepare.pairs(prepare.lines(ENGLISH, "en"), prepare.lines(GERMAN, "de"))
    assert found == [("small, friendly text editor", "Kleiner, benutzerfreundlicher Texteditor")]


def test_lists_without_the_language_say_how_to_get_them(tmp_path):
    with pytest.raises(SystemExit, match=r"no \*_i18n_Translation-de; first sudo apt-get -o Acquire::Languages=en,de update"):
        prepare.contents(tmp_path, "de")


def test_broken_pairs_are_exchanged_among_themselves():
    pool = np.arange(50)[:, None], np.arange(50)[:, None] + 100
    (english, german), chosen = translations.broken(pool, 40, seed=0)
    others = np.setdiff1d(np.arange(50), chosen)
    assert len(chosen) == 20
    np.testing.assert_array_equal(english, pool[0])
    np.testing.assert_array_equal(german[others], pool[1][others])
    assert (german[chosen] != pool[1][chosen]).all()
    np.testing.assert_array_equal(np.sort(german, axis=0), pool[1])


def test_batches_are_epochs_in_a_random_order():
    pool = np.arange(256)[:, None], np.arange(256)[:, None]
    first, second, third = (batch["view1"][:, 0] for batch in translations.batches(pool, 3, seed=0))
    assert sorted([*first, *second]) == list(range(256))
    assert len(set(third)) == 128
    assert list(first) != list(third)
