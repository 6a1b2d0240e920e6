//! Questions that a shard may put to other threads.
