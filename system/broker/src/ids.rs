//! Random (version 4) ids of topics, directories and incarnations.

use protocol::Uuid;

/// A source of ids from the node's own stream for `purpose`.
pub(crate) fn source(purpose: &'static str) -> impl FnMut() -> Uuid {
    let mut rng = env::rng::stream(purpose);
    move || {
        let random = (u128::from(rng.u64()) << 64) | u128::from(rng.u64());
        let version = 0x4 << 76;
        let variant = 0x2 << 62;
        Uuid::from_u128(random & !(0xf << 76) & !(0x3 << 62) | version | variant)
    }
}
