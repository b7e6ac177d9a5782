"""Where hands come from: the synthetic ones and the readers by one call, and what is told of them."""

import pytest

from flowlib.hands import Skipped
from flowlib.hands.published import published, published_table
from flowlib.hands.sources import describe_hands, find_hands


def test_the_synthetic_hand_is_made_as_asked():
    hands = find_hands(protocol="within", subjects=2, takes=4, families=1, seed=3)
    assert len(hands) == 2 * 4 * 2 and len({sequence.subject for sequence in hands.split("test")}) == 2
    assert (
        find_hands(subjects=3, takes=1, families=1, seed=3).sequences[0].fingerprint()
        != find_hands(subjects=3, takes=1, families=1, seed=4).sequences[0].fingerprint()
    )


def test_it_is_told_what_there_is_and_what_is_skipped():
    hands = find_hands(subjects=3, takes=1, families=1)
    text = describe_hands(hands, [Skipped(f"take {number}", "it is empty") for number in range(7)])
    assert text.splitlines()[0].startswith("train: 2 sequences of 1 subject, ")
    assert "21 joints (FPHA_21) of right hands, 2 actions" in text
    assert "7 skipped:\n  take 0: it is empty" in text and "… and 2 more" in text


@pytest.mark.parametrize(
    "given, message",
    [
        ({"source": "hand"}, "source: expected one of synthetic, fpha, msra15, icvl, nyu, got 'hand'"),
        ({"folder": "x"}, "folder: expected none with the synthetic hand, got 'x'"),
        ({"source": "fpha"}, "folder: expected where fpha lies, got ''"),
        ({"protocol": "1:1"}, "protocol: expected 'cross-subject' or 'within' with synthetic, got '1:1'"),
        ({"source": "fpha", "folder": "x", "protocol": "P0"}, "protocol: expected '1:1' or 'cross-subject' or"),
        ({"source": "nyu", "folder": "x", "protocol": "P0"}, "protocol: expected none with nyu, got 'P0'"),
    ],
)
def test_what_can_not_be_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        find_hands(**given)


@pytest.mark.parametrize("source", ["fpha", "msra15", "icvl", "nyu"])
def test_a_folder_that_is_not_there_is_named(source, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_hands(source, tmp_path / "nowhere")


def test_published_figures_stand_beside_ones_own_with_their_caveats():
    table = published_table("msra15", {"model": 12.345})
    assert "| **model** | here | 12.35 |" in table or "| **model** | here | 12.34 |" in table
    for entry in published("msra15"):
        if any("mm" in figure for figure in entry["figures"]):
            assert entry["name"] in table and entry["caveat"] in table
    assert "from memory, unchecked" in table
    assert published_table("synthetic", {"model": 1.0}) == "Nothing published on synthetic to compare with."
