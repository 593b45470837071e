"""What is said when Ray does not start or does not let us in: one sentence, whatever it raises."""

import pytest
import ray
from ray.exceptions import AuthenticationError

from cluster.connect import _start_here, connected
from schemas.errors import ConfigError


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(28, "No space left on device"), "Ray cannot be started on this machine: .*No space left on device"),
        (PermissionError(13, "Permission denied", "/tmp/ray"), "Ray cannot be started .*Permission denied: '/tmp/ray'"),
        (ValueError("Ray cannot start:\n  port 6379 is busy"), "this machine: Ray cannot start: port 6379 is busy"),
        (RuntimeError("Version mismatch:\n  a\n  b"), "Version mismatch: a b"),
        (SystemError(""), None),
    ],
)
def test_a_ray_that_does_not_start_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, said: str | None
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuses)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ConfigError if said else SystemError, match=said) as told, connected(None):
        pass
    assert "\n" not in str(told.value)


def test_a_second_node_without_the_token_is_told_which_file_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        try:
            raise AuthenticationError("InvalidAuthToken")
        except AuthenticationError as error:
            raise ConnectionError("Failed to connect to Ray cluster") from error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuses)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ConfigError, match="wants its token; copy ~/.ray/auth_token from its head"), connected(None):
        pass


@pytest.mark.parametrize("fails", [2, 3])
def test_a_ray_that_does_not_come_up_in_time_is_started_again(monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
    tries: list[str] = []

    def init(address: str, **options: object) -> None:
        tries.append(address)
        if len(tries) <= fails:
            raise Exception("The current node timed out during startup.")  # as Ray has it

    stopped: list[bool] = []
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: stopped.append(True))
    if fails < 3:
        _start_here()
    else:
        with pytest.raises(RuntimeError, match=r"timed out during startup\. \(3 times\)"):
            _start_here()
    assert len(tries) == 3
    assert len(stopped) == fails, "what had come up of it is stopped"
