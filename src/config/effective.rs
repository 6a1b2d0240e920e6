//! effective
pub(super) fn print(_: &super::Config) -> String {
    String::new()
}
