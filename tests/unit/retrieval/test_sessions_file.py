"""The file of sessions: whose they are, how long they live, and how much they may hold."""

import pathlib

from ullage_runtime.retrieval.sessions.file import MAX_SESSIONS, MAX_TURNS, SessionsFile, Turn


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_its_tenants_and_lives_on_while_it_is_used(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    file = SessionsFile(tmp_path / "sessions.sqlite", clock)
    made = file.create("anna", "notes", 10.0)
    assert file.get("bert", made.id) is None
    assert not file.delete("bert", made.id)
    clock.now += 9
    assert file.get("anna", made.id) is not None, "which is a use"
    clock.now += 9
    assert file.get("anna", made.id) is not None
    clock.now += 10
    assert file.get("anna", made.id) is None
    assert file.forget() == 1
    file.close()


def test_the_oldest_turns_and_sessions_leave(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    file = SessionsFile(tmp_path / "sessions.sqlite", clock)
    first = file.create("anna", "notes", 10.0)
    file.append(first, [Turn("user", str(n)) for n in range(MAX_TURNS + 5)])
    assert [turn.text for turn in file.turns(first, MAX_TURNS)][:2] == ["5", "6"]
    clock.now += 1
    others = [file.create("anna", "notes", 10.0) for _ in range(MAX_SESSIONS)]
    theirs = file.create("bert", "notes", 10.0)
    assert file.get("anna", first.id) is None
    assert file.get("anna", others[0].id) is not None
    assert file.get("bert", theirs.id) is not None
    file.close()


def test_what_comes_after_a_session_was_deleted_is_not_kept(tmp_path: pathlib.Path) -> None:
    file = SessionsFile(tmp_path / "sessions.sqlite", Clock())
    made = file.create("anna", "notes", 10.0)
    file.delete("anna", made.id)
    another = file.create("bert", "notes", 10.0)
    file.append(made, [Turn("user", "late")])
    file.note_shown(made, [1])
    file.keep_candidates(made, "asked", [])
    assert file.turns(another, 10) == []
    assert file.shown(another) == frozenset()
    assert file.candidates(another, "asked") is None
    file.close()
