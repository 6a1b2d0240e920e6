//! advice
pub(super) fn warnings(_: &super::Config) -> Vec<String> {
    Vec::new()
}
pub(super) fn unsupported(_: &super::Config) -> Vec<String> {
    Vec::new()
}
