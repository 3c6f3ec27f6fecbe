"""How gRPC connections inside the cluster are set up."""

# A baton carries every token of its request, and a long context with log probabilities has megabytes of them; so does
# what is known of the links of a large cluster.
MAX_MESSAGE_BYTES = 256 << 20

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # An instance that comes back is tried at once, not after gRPC's minutes of back-off.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A host that vanishes without a word is noticed even where nothing is said.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # Two streams to one address must not share a connection's fate through a hidden global pool.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
