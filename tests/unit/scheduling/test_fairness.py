"""Who was served least goes first; idling saves nothing up, and being alone costs nothing later."""

from ullage_runtime.core.scheduling.fairness import Service


def rounds(service: Service, tenants: str, count: int) -> str:
    """Serve whoever was served least so often, and return who it was."""
    order = ""
    for _ in range(count):
        chosen = min(tenants, key=service.of)
        service.count(chosen, 1)
        order += chosen
    return order


def test_those_who_want_something_take_turns() -> None:
    service = Service()
    service.arrive("a", "")
    service.arrive("b", "a")
    assert rounds(service, "ab", 6) == "ababab"


def test_idling_saves_nothing_up() -> None:
    service = Service()
    service.arrive("a", "")
    service.count("a", 1000)
    service.arrive("b", "a")
    assert rounds(service, "ab", 10).count("a") == 5


def test_what_a_tenant_had_while_it_was_alone_does_not_keep_it_waiting_later() -> None:
    service = Service()
    service.arrive("a", "")
    service.count("a", 1_000_000)
    # Everybody has gone; somebody new comes, and then the first one again.
    service.arrive("b", "")
    service.count("b", 5)
    service.arrive("a", "b")
    assert rounds(service, "ab", 20).count("a") >= 7
