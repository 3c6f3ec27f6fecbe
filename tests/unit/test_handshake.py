"""The handshake that opens every stream inside the cluster, and all the ways to get through it without the secret."""

import pytest

from cluster.handshake import Called, Caller, Unauthenticated, draw_secret
from cluster.pb.instance_pb2 import Challenge, FrontHello, Holder, PeerHello, Proof
from cluster.secret import SECRET_BYTES, ClusterSecret, End, Kind, Opening

pytestmark = pytest.mark.unit

SECRET, ANOTHER = ClusterSecret(bytes(SECRET_BYTES)), ClusterSecret(b"x" * SECRET_BYTES)
OPENING = Opening(kind=Kind.SERVE, hello=b"I am the router", nonce=b"once")


def make_hello(front: str = "router/1", term: int = 1, incarnation: int = 7) -> FrontHello:
    return FrontHello(front=front, term=term, instance=Holder(instance="decode-0", incarnation=incarnation))


def meet(
    hello: FrontHello | None = None, *, caller: ClusterSecret = SECRET, called: ClusterSecret = SECRET
) -> tuple[Caller, Called]:
    """A hello that was sent and heard."""
    hello = hello or make_hello()
    return Caller(caller, Kind.SERVE, hello), Called(
        called, Kind.SERVE, FrontHello.FromString(hello.SerializeToString())
    )


def test_two_who_know_the_secret_believe_each_other() -> None:
    caller, called = meet()
    called.check(caller.answer(called.challenge()))


def test_a_caller_proves_nothing_to_a_stranger() -> None:
    caller, called = meet(called=ANOTHER)
    with pytest.raises(Unauthenticated):
        caller.answer(called.challenge())


def test_a_stranger_is_not_believed() -> None:
    hello = make_hello()
    _, called = meet(hello)
    challenge = called.challenge()
    opening = Opening(kind=Kind.SERVE, hello=hello.SerializeToString(deterministic=True), nonce=challenge.nonce)
    with pytest.raises(Unauthenticated):
        called.check(Proof(proof=opening.prove(ANOTHER, End.CALLER)))


def test_the_calleds_own_proof_sent_back_to_it_is_no_proof() -> None:
    _, called = meet()
    with pytest.raises(Unauthenticated):
        called.check(Proof(proof=called.challenge().proof))


def test_the_callers_own_proof_sent_back_to_it_is_no_proof() -> None:
    caller, called = meet()
    challenge = called.challenge()
    proof = caller.answer(challenge)
    with pytest.raises(Unauthenticated):
        caller.answer(Challenge(nonce=challenge.nonce, proof=proof.proof))


def test_a_recorded_caller_cannot_be_played_again() -> None:
    hello = make_hello()
    caller, called = meet(hello)
    proof = caller.answer(called.challenge())
    called.check(proof)
    later = Called(SECRET, Kind.SERVE, hello)
    with pytest.raises(Unauthenticated):
        later.check(proof)


def test_a_recorded_challenge_cannot_be_played_again() -> None:
    _, called = meet()
    later, _ = meet()
    with pytest.raises(Unauthenticated):
        later.answer(called.challenge())


@pytest.mark.parametrize("changed", [make_hello(front="router/2"), make_hello(term=2), make_hello(incarnation=8)])
def test_a_proof_is_worth_nothing_for_another_pair_or_term(changed: FrontHello) -> None:
    hello = make_hello()
    caller = Caller(SECRET, Kind.SERVE, hello)
    changed.nonce = hello.nonce
    called = Called(SECRET, Kind.SERVE, changed)
    with pytest.raises(Unauthenticated):
        caller.answer(called.challenge())


def test_a_proof_is_worth_nothing_for_another_kind_of_stream() -> None:
    hello = PeerHello(source=Holder(instance="a", incarnation=1), receiver=Holder(instance="b", incarnation=1))
    caller = Caller(SECRET, Kind.HANDOVER, hello)
    with pytest.raises(Unauthenticated):
        caller.answer(Called(SECRET, Kind.LINK, hello).challenge())


@pytest.mark.parametrize("cut", [0, 1, 31])
def test_a_truncated_proof_is_no_proof(cut: int) -> None:
    caller, called = meet()
    proof = caller.answer(called.challenge()).proof
    for wrong in (proof[:cut], proof + b"\0"):
        with pytest.raises(Unauthenticated):
            called.check(Proof(proof=wrong))


@pytest.mark.parametrize(
    "other",
    [
        Opening(kind=Kind.LINK, hello=OPENING.hello, nonce=OPENING.nonce),
        Opening(kind=Kind.SERVE, hello=OPENING.hello + OPENING.nonce, nonce=b""),
        Opening(kind=Kind.SERVE, hello=OPENING.hello[:-1], nonce=OPENING.hello[-1:] + OPENING.nonce),
        Opening(kind=Kind.SERVE, hello=OPENING.hello, nonce=b""),
    ],
)
def test_no_two_openings_have_the_same_proof(other: Opening) -> None:
    assert not other.is_proof(SECRET, End.CALLED, OPENING.prove(SECRET, End.CALLED))


@pytest.mark.parametrize("value", [b"", b"short", bytes(SECRET_BYTES - 1)])
def test_there_is_no_empty_or_short_secret(value: bytes) -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        ClusterSecret(value)


def test_a_secret_is_drawn_and_never_shown() -> None:
    secret = draw_secret()
    assert secret != draw_secret()
    assert repr(secret) == str(secret) == "ClusterSecret()"


def test_each_hello_and_each_challenge_has_a_nonce_of_its_own() -> None:
    hellos = [make_hello() for _ in range(2)]
    called = [meet(hello)[1] for hello in hellos]
    assert hellos[0].nonce != hellos[1].nonce
    assert called[0].challenge().nonce != called[1].challenge().nonce
