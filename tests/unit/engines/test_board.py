"""Workers that show each other who computes."""

from ullage_runtime.engines.worker.board import Board, Place


def test_workers_see_how_many_compute() -> None:
    board = Board.create()
    try:
        first, second = (Place(Board(board.fd), board.take_place()) for _ in range(2))
        assert first.sharing == 1
        first.show(working=True)
        second.show(working=True)
        assert first.sharing == second.sharing == 2
        first.show(working=False)
        assert second.sharing == 1
    finally:
        board.close()


def test_the_mark_of_a_worker_that_died_can_be_wiped() -> None:
    board = Board.create()
    try:
        place = board.take_place()
        Place(Board(board.fd), place).show(working=True)
        board.mark(place, working=False)
        assert board.working == 0
        assert board.take_place() != place
    finally:
        board.close()
