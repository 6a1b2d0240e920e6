//! Segments with gaps, tears and damage.
