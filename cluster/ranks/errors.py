"""What can go wrong between the ranks of an instance."""


class RankLost(ConnectionError):
    """A rank has died or failed, and the instance with it: the others have only parts of every token."""

    def __init__(self, rank: int, problem: str) -> None:
        self.rank = rank
        super().__init__(f"rank {rank} is lost: {problem}")
