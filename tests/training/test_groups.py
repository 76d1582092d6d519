"""Groups: everything is derived from one ordered list, and the rows of a batch share exactly what they should."""

import pytest
import torch
from training.bars import groups

from steerable.features.digits import SLANT
from steerable.features.pixels import BRIGHTNESS
from steerable.training.contrastive import Contrast
from steerable.training.groups import Group, Groups, check_total, parse_groups

KNOWN = {group.name: group for group in groups()}


def test_spans_and_networks_follow_from_the_widths():
    three = Groups((Group("a", 4, Contrast(SLANT)), Group("b", 2, Contrast(BRIGHTNESS)), Group("rest", 6)))
    assert three.spans == (("a", 0, 4), ("b", 4, 6), ("rest", 6, 12)) and three.width == 12
    assert three.mapping(8) == [["a", [4, 8, 8, 4]], ["b", [2, 8, 8, 2]], ["rest", [6, 8, 8, 6]]]
    assert [group.name for group in three.watched] == ["a", "b"]


def test_one_more_attribute_is_one_more_line():
    more = Groups((*groups(), Group("ink", 2, Contrast(BRIGHTNESS))))
    assert more.spans[-1] == ("ink", 12, 14) and len(more.rows(16)) == 4 and len(more.owners(16)) == 4


@pytest.mark.parametrize("batch", [6, 7, 16, 64])
def test_the_rows_of_a_batch_are_pairs_that_fill_it(batch):
    rows = groups().rows(batch)
    assert all(count >= 2 and count % 2 == 0 for count in rows)
    assert sum(rows) == batch - batch % 2


def test_pairs_share_their_group_and_nothing_else():
    """Looked up pair by pair: whom rows share which group with, in a batch of 12 with four rows a group."""
    owners = groups().owners(12)
    for i in range(12):
        for j in range(i):
            shared = {name for name, rows in owners.items() if rows[i] == rows[j]}
            pair = i == j + 1 and i % 2 == 1
            if not pair:
                assert shared == set()
            elif i < 4:
                assert shared == {"slant"}
            elif i < 8:
                assert shared == {"brightness"}
            else:
                assert shared == {"slant", "brightness"}  # the rest is what differs while all that is measured is shared


def test_shared_rows_have_their_owners_numbers():
    three = groups()
    z = torch.arange(12.0)[:, None] + torch.arange(12.0) / 100
    mixed = three.shared(z, three.owners(12))
    assert torch.equal(mixed[1, :4], z[0, :4]) and torch.equal(mixed[1, 4:], z[1, 4:])
    assert torch.equal(mixed[11, :8], z[10, :8]) and torch.equal(mixed[11, 8:], z[11, 8:])
    assert torch.equal(mixed[::2], z[::2])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Groups(()), "groups need names of their own, got no group"),
        (lambda: Groups((Group("a", 4, Contrast(SLANT)), Group("a", 4))), "names of their own, got a, a"),
        (lambda: Groups((Group("a b", 4, Contrast(SLANT)),)), 'named by a word in small letters, "digit" for example; got "a b"'),
        (lambda: Groups((Group("a", 1, Contrast(SLANT)),)), 'the group "a" has 1 numbers: on a sphere it needs 2 or more'),
        (lambda: Groups((Group("rest", 4),)), "no group of rest has a feature"),
        (
            lambda: groups().rows(5),
            "a batch of 5 does not hold a pair for each of the 3 groups slant, brightness, rest: use --batch 6 or more",
        ),
        (lambda: parse_groups("slant", KNOWN), '--groups takes NAME:WIDTH with commas, .* got "slant"'),
        (lambda: parse_groups("slant:x", KNOWN), 'got "slant:x"'),
        (lambda: parse_groups("slnat:4,rest:4", KNOWN), 'unknown group "slnat": did you mean "slant"'),
        (lambda: check_total(groups(), 64), r"slant 4 \+ brightness 4 \+ rest 4 = 12 numbers, the latent has 64: make the widths add up"),
    ],
)
def test_bad_groups_are_refused_in_one_line(made, message, no_annotation_checks):
    with pytest.raises(ValueError, match=message) as caught:
        made()
    assert "\n" not in str(caught.value)


def test_a_text_chooses_orders_and_sizes_groups():
    found = parse_groups(" rest:8, slant:6 ", KNOWN)
    assert found.spans == (("rest", 0, 8), ("slant", 8, 14)) and found.all[1].contrast is KNOWN["slant"].contrast


def test_a_name_that_is_no_group_may_be_a_feature():
    found = parse_groups("slant:4,light:2,rest:4", {"slant": KNOWN["slant"]}, find={"light": BRIGHTNESS}.__getitem__)
    assert found.all[1].contrast is not None and found.all[1].contrast.feature is BRIGHTNESS
    check_total(found, 10)
