//! Places where the protocol may be interrupted, each with a name. With the feature `failpoints` a process can be told to kill
//! itself at one of them: `FALAJ_FAILPOINT=<lane>/<name>/<n>` is the n-th time that the lane comes there. Without the feature a
//! call is nothing.

/// Ends the process by SIGKILL if it was told to die here.
#[cfg(feature = "failpoints")]
#[allow(clippy::disallowed_methods, reason = "a test's order, and no setting")]
pub fn hit(lane: &str, name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static TOLD: LazyLock<String> = LazyLock::new(|| std::env::var("FALAJ_FAILPOINT").unwrap_or_default());
    static TIMES: AtomicU64 = AtomicU64::new(0);

    let Some((place, times)) = TOLD.rsplit_once('/') else { return };
    let is_here = place.split_once('/').is_some_and(|(of, at)| of == lane && at == name);
    if is_here && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == times.parse().unwrap_or(1) {
        // SAFETY: it only sends this process a signal.
        unsafe {
            libc::raise(libc::SIGKILL);
        }
    }
}

/// Nothing.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_lane: &str, _name: &str) {}
