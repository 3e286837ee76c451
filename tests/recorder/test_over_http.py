"""A recorder keeps its promises over HTTP as it does in a folder: the same tests, by a server."""

import pytest

from tests.recorder.test_recording import (
    test_every_kind_of_store_gives_back_what_was_recorded,
    test_lengths_that_are_not_declared_grow_and_are_trimmed,
)
from tests.recorder.test_resuming import (
    test_a_run_goes_on_where_it_stood,
    test_a_run_that_another_writer_left_is_not_sealed_behind_its_back,
    test_a_sealed_run_takes_nothing,
    test_a_tile_goes_aside_where_a_dead_writer_left_another,
    test_a_writer_that_was_replaced_stops,
    test_other_values_are_a_conflict_and_the_first_stay,
    test_the_same_again_is_nothing,
    test_writers_of_one_run_need_no_word_between_them,
)
from tests.recorder.test_sealing import (
    test_a_seal_names_an_index_that_says_the_same,
    test_an_empty_run_is_sealed_too,
    test_masks_tell_absent_from_zero,
    test_of_two_who_seal_one_wins_and_both_know,
    test_sealing_again_changes_nothing,
)

pytestmark = pytest.mark.parametrize("store_url", ["http"], indirect=True)

__all__ = [
    "test_a_run_goes_on_where_it_stood",
    "test_a_run_that_another_writer_left_is_not_sealed_behind_its_back",
    "test_a_seal_names_an_index_that_says_the_same",
    "test_a_sealed_run_takes_nothing",
    "test_a_tile_goes_aside_where_a_dead_writer_left_another",
    "test_a_writer_that_was_replaced_stops",
    "test_an_empty_run_is_sealed_too",
    "test_every_kind_of_store_gives_back_what_was_recorded",
    "test_lengths_that_are_not_declared_grow_and_are_trimmed",
    "test_masks_tell_absent_from_zero",
    "test_of_two_who_seal_one_wins_and_both_know",
    "test_other_values_are_a_conflict_and_the_first_stay",
    "test_sealing_again_changes_nothing",
    "test_the_same_again_is_nothing",
    "test_writers_of_one_run_need_no_word_between_them",
]
