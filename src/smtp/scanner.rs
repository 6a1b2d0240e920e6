//! The scanner of DATA and BDAT content.
