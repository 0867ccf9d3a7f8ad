//! A name for one connection, by which the logs of both sides can be put together.

/// In the form of a random UUID, as Couchbase Lite has it.
pub(super) fn correlation_id() -> String {
    let random = fastrand::u128(..);
    let part = |shift: u32, mask: u128| random >> shift & mask;
    let (version, variant) = (part(64, 0xfff) | 0x4000, part(48, 0x3fff) | 0x8000);
    format!(
        "{:08x}-{:04x}-{version:04x}-{variant:04x}-{:012x}",
        part(96, 0xffff_ffff),
        part(80, 0xffff),
        part(0, 0xffff_ffff_ffff)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_random_uuid() {
        let id = correlation_id();
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!((parts, &id[14..15]), (vec![8, 4, 4, 4, 12], "4"));
        assert!("89ab".contains(&id[19..20]), "{id}");
        assert_ne!(id, correlation_id());
    }
}
