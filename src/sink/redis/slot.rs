//! Keys that share a slot. A cluster gives each key one of its slots, by the key's hash tag if it has one, and a script may touch
//! keys of one slot only.

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;

/// The hash tag of `key`: what stands between its first `{` and the next `}`, unless that is nothing.
pub(super) fn tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// The slot of `key`: the CRC-16 (XMODEM) of its tag or, without one, of all of it.
pub(super) fn of(key: &str) -> u16 {
    let crc = tag(key).unwrap_or(key).bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

/// The name of a key that stands beside `key` in the same slot.
pub(super) fn beside(key: &str, name: &str) -> String {
    if tag(key).is_some() { format!("{key}:{name}") } else { format!("{{{key}}}:{name}") }
}

/// Whether [`beside`] keeps its promise: a `}` that ends no tag would end ours too early.
pub(super) fn has_neighbours(key: &str) -> bool {
    tag(key).is_some() || !key.contains('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_beside_a_board_share_its_slot() {
        for (key, fence) in [("top", "{top}:m"), ("{a}:top", "{a}:top:m"), ("a}{b}", "a}{b}:m"), ("a{b", "{a{b}:m")] {
            assert_eq!(beside(key, "m"), fence);
            assert_eq!((of(key), true), (of(fence), has_neighbours(key)), "{key}");
        }
        for key in ["a{}b", "a}b", "}{"] {
            assert!(of(key) != of(&beside(key, "m")) && !has_neighbours(key), "{key}");
        }
    }

    #[test]
    fn slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT says them.
        for (key, slot) in [("", 0), ("123456789", 12_739), ("foo", 12_182), ("{foo}:m", 12_182), ("top_content", 2_000)] {
            assert_eq!(of(key), slot, "{key}");
        }
    }
}
