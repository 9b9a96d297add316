"""What an operator sets."""

from dataclasses import dataclass

from catalign.decoding.scores import ScoreMode


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and manners of the service.

    Attributes:
        max_wait_ms: how long a request waits for others to share its batch, in milliseconds.
        batch_size: requests computed at once.
        queue_size: requests that may wait for the model; one more is answered 503.
        timeout_s: after so many seconds a request is answered 504.
        max_body_bytes: a larger request body is answered 413.
        max_k: most items asked for at once; it bounds the width of the search.
        prompt_cache_mb: memory in MiB for what the model computed of prompts, shared by the runs; 0 keeps nothing.
        cors_origins: web pages of these origins may call the service; none by default.
        log_histories: write histories into the log.
        score: how titles are scored, see `decoding.scores.ScoreMode`.
    """

    max_wait_ms: float = 5.0
    batch_size: int = 32
    queue_size: int = 256
    timeout_s: float = 10.0
    max_body_bytes: int = 1 << 20
    max_k: int = 100
    prompt_cache_mb: float = 128.0
    cors_origins: tuple[str, ...] = ()
    log_histories: bool = False
    score: ScoreMode = "valid"
