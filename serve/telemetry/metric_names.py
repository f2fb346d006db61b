"""Everything that polydraft tells Prometheus. Names follow vLLM's, with the prefix `polydraft_` (Ray adds `ray_`).

Labels are bounded: languages that the server knows, versions of its own drafters, positions in a draft; never a
session, a request or a key.
"""

from __future__ import annotations

from serve.telemetry.instruments import Metric, doubling

_BOTH = ("language", "drafter")
_TEXT = ("language",)
_MODEL = ("model",)

# A tiny model writes its first token after 1 ms; a long prompt behind a full queue, after two minutes.
_TO_FIRST_TOKEN_S = doubling(0.001, 18)
# From a round on a fast GPU to one that waited for another verifier.
_BETWEEN_TOKENS_S = doubling(0.0005, 16)
# Up to 11 minutes: the default `request_timeout_s` is 10.
_TEXT_S = doubling(0.01, 17)
# From a tiny model's to a prefill chunk of a large one.
_STEP_S = doubling(0.0005, 14)
# From one session's single token to a GPU's full batch.
_STEP_TOKENS = doubling(1, 15)

ROUTER_METRICS = (
    Metric(
        name="polydraft_requests",
        kind="counter",
        labels=("language", "finish_reason"),
        description="Texts ended: stop, length, closed (a stop string, or the client left), or an HTTP status.",
    ),
    Metric(name="polydraft_prompt_tokens", kind="counter", labels=_TEXT, description="Tokens of prompts."),
    Metric(name="polydraft_generation_tokens", kind="counter", labels=_BOTH, description="Output tokens."),
    Metric(
        name="polydraft_rounds",
        kind="counter",
        labels=_BOTH,
        description="Verifications, plain ones included; generation_tokens / rounds is the mean acceptance length.",
    ),
    Metric(
        name="polydraft_round_seconds",
        kind="counter",
        labels=(*_BOTH, "phase"),
        description="Time of the rounds by phase: draft and verify (forward passes), wire (waiting beyond those).",
    ),
    Metric(
        name="polydraft_spec_decode_num_drafts", kind="counter", labels=_BOTH, description="Drafts that were not empty."
    ),
    Metric(
        name="polydraft_spec_decode_num_drafts_ahead",
        kind="counter",
        labels=_BOTH,
        description="Drafts of which some tokens were there when they were asked for: the drafter had run ahead.",
    ),
    Metric(name="polydraft_spec_decode_num_draft_tokens", kind="counter", labels=_BOTH, description="Drafted tokens."),
    Metric(
        name="polydraft_spec_decode_num_draft_tokens_ahead",
        kind="counter",
        labels=_BOTH,
        description="Those that were there when they were asked for.",
    ),
    Metric(
        name="polydraft_spec_decode_num_draft_tokens_per_pos",
        kind="counter",
        labels=(*_BOTH, "position"),
        description="Drafts that reached a position, counted from 0.",
    ),
    Metric(
        name="polydraft_spec_decode_num_accepted_tokens", kind="counter", labels=_BOTH, description="Accepted tokens."
    ),
    Metric(
        name="polydraft_spec_decode_num_accepted_tokens_per_pos",
        kind="counter",
        labels=(*_BOTH, "position"),
        description="Drafts that were accepted at a position, counted from 0, and all before it.",
    ),
    Metric(
        name="polydraft_verifier_replays",
        kind="counter",
        labels=_TEXT,
        description="Verifier replicas lost by a text, which was replayed at another.",
    ),
    Metric(
        name="polydraft_drafter_losses",
        kind="counter",
        labels=_TEXT,
        description="Drafter replicas given up by a text: dead, late or refusing.",
    ),
    Metric(
        name="polydraft_num_requests_waiting",
        kind="gauge",
        labels=_TEXT,
        description="Texts without a token yet: queueing, or their prompt is being read.",
    ),
    Metric(
        name="polydraft_num_requests_running", kind="gauge", labels=_TEXT, description="Texts that are being written."
    ),
    Metric(
        name="polydraft_time_to_first_token_seconds",
        kind="histogram",
        labels=_TEXT,
        boundaries=_TO_FIRST_TOKEN_S,
        description="From a text's beginning at the router to its first token.",
    ),
    Metric(
        name="polydraft_inter_token_latency_seconds",
        kind="tally",
        labels=_TEXT,
        boundaries=_BETWEEN_TOKENS_S,
        description="Between one round's tokens and the next's, as a client sees them come.",
    ),
    Metric(
        name="polydraft_request_time_per_output_token_seconds",
        kind="histogram",
        labels=_TEXT,
        boundaries=_BETWEEN_TOKENS_S,
        description="A text's time after its first tokens, by the number of tokens that came after those.",
    ),
    Metric(
        name="polydraft_e2e_request_latency_seconds",
        kind="histogram",
        labels=_TEXT,
        boundaries=_TEXT_S,
        description="From a text's beginning at the router to its last token.",
    ),
    Metric(
        name="polydraft_captured_prompts",
        kind="counter",
        labels=("outcome",),
        description="Prompts that were to be kept: stored, or dropped (too long, full queue, or not writable).",
    ),
)

ENGINE_METRICS = (
    Metric(
        name="polydraft_engine_sessions",
        kind="gauge",
        labels=(*_MODEL, "state"),
        description="Sessions at a replica by state: running, or waiting for memory.",
    ),
    Metric(
        name="polydraft_engine_step_seconds",
        kind="tally",
        labels=_MODEL,
        boundaries=_STEP_S,
        description="Duration of the engine's steps.",
    ),
    Metric(
        name="polydraft_engine_step_tokens",
        kind="tally",
        labels=_MODEL,
        boundaries=_STEP_TOKENS,
        description="Tokens in a step, of all sessions together.",
    ),
    Metric(
        name="polydraft_kv_blocks",
        kind="gauge",
        labels=(*_MODEL, "state"),
        description="Blocks of key/value memory by state: held by sessions, cached for their text only, or free.",
    ),
    Metric(
        name="polydraft_num_preemptions",
        kind="counter",
        labels=_MODEL,
        description="Times that a session gave up its memory to an older one.",
    ),
    Metric(
        name="polydraft_prefix_cache_hits",
        kind="counter",
        labels=_MODEL,
        description="Tokens that were not run because their keys and values were cached.",
    ),
)
