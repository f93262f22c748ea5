"""Which queues, profiles and priorities a caller may use; what it may not use is not there."""

from typing import Any

import pytest

from sparkbroker.broker.app.catalogue import Catalogue
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.request import SpecRequest
from sparkbroker.broker.domain.capacity.queue import PriorityBounds, Queue
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import BrokerError, InvalidField, NotFound
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.authenticator import Caller, Role

ANN = Caller(Principal("ann"))
OPS = Caller(Principal("ops"), frozenset({Role.USER, Role.OPERATOR}))
CAPACITY = Resources.of(cores=4, memory=1 << 36)


def catalogue(priority=PriorityBounds()):  # noqa: B008 - it is frozen
    def profile(name, queues=(), priority=0):
        size = ContainerSize(cores=1, memory=1 << 30)
        spec = LeaseSpec(profile=name, queue=(queues or ("open",))[0], driver=size, priority=priority)
        return Profile(name=name, defaults=spec, queues=queues)

    queues = (
        Queue(name="open", nominal=CAPACITY, priority=priority),
        Queue(name="secret", nominal=CAPACITY, users=("bob",)),
    )
    profiles = (profile("open"), profile("urgent", priority=50), profile("secret", ("secret",)))
    return Catalogue(
        profiles={each.name: each for each in profiles},
        queues={each.name: each for each in queues},
        pools={"local": CAPACITY},
        default_profile="open",
        default_queue="open",
    )


def refusal(caller: Caller, **spec: Any) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        catalogue().resolve(caller, SpecRequest(**spec))
    error: BrokerError = caught.value
    return error


@pytest.mark.parametrize("field", ["queue", "profile"])
def test_what_a_caller_may_not_use_is_refused_as_what_is_not_there(field):
    forbidden, unknown = refusal(ANN, **{field: "secret"}), refusal(ANN, **{field: "absent"})
    assert type(forbidden) is type(unknown) is NotFound
    assert forbidden.message == unknown.message.replace("absent", "secret")
    assert forbidden.metadata == unknown.metadata
    assert forbidden.message.endswith(("you may use open", "you may use open, urgent"))
    assert catalogue().resolve(OPS, SpecRequest(profile="secret", queue="secret")).spec.queue == "secret"


@pytest.mark.parametrize(("caller", "priority", "bound"), [
    (ANN, 6, "from -5 to 5"), (ANN, -6, "from -5 to 5"), (ANN, 1000, "from -5 to 5"), (OPS, 1001, "from -1000 to 1000"),
])  # fmt: skip
def test_a_priority_outside_of_the_callers_bounds_is_refused_with_the_bounds(caller, priority, bound):
    error = refusal(caller, priority=priority)
    assert isinstance(error, InvalidField)
    assert error.message.startswith(f"spec.priority: {priority} is out of range; ")
    assert error.message.endswith(f"it must be {bound}")


def test_bounds_are_those_of_the_queue_and_of_the_role_and_a_profiles_default_is_open_to_all():
    assert catalogue().resolve(ANN, SpecRequest(priority=-5)).spec.priority == -5
    assert catalogue().resolve(OPS, SpecRequest(priority=1000)).spec.priority == 1000
    assert catalogue().resolve(ANN, SpecRequest(profile="urgent")).spec.priority == 50
    assert catalogue().resolve(ANN, SpecRequest(profile="urgent", priority=50)).spec.priority == 50
    narrow = catalogue(PriorityBounds(min=0, max=1, operator_max=2))
    with pytest.raises(InvalidField, match="in queue `open` it must be from 0 to 1"):
        narrow.resolve(ANN, SpecRequest(priority=2))
    assert narrow.resolve(OPS, SpecRequest(priority=2)).spec.priority == 2
