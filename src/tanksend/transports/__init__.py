"""Ways to hand a message over, each behind the `Transport` protocol."""
