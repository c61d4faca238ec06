//! The shipped leaderboards in Redis against the oracle.

use super::found::assert_close;
use super::oracle::{Oracle, top};
use crate::support::project::Project;

const TEN_MINUTES_MS: i64 = 600_000;

/// Both have exactly the members, scores and order of the oracle, and end some time after falaj does.
pub(crate) async fn are_exact(project: &Project, oracle: &Oracle) {
    let board = oracle.board(TEN_MINUTES_MS);
    assert_eq!(project.board("top_content").await, counts(oracle));

    let engaged = board.iter().map(|(content, sums)| (content.clone(), sums.duration_ms)).filter(|(_, ms)| *ms > 0);
    let expected = top(engaged, 100);
    assert!(expected.windows(2).all(|pair| pair[0].1 > pair[1].1), "a tie would be broken by the order of additions");
    let found = project.board("top_content_seconds").await;
    assert_eq!(found.len(), expected.len());
    for ((content, ms), (member, score)) in expected.iter().zip(&found) {
        assert_eq!(content, member);
        assert_close(*ms as f64 / 1000.0, *score, content);
    }

    for key in ["top_content", "top_content_seconds"] {
        let mut redis = project.redis().await;
        let ttl: i64 = redis::cmd("TTL").arg(project.board_key(key)).query_async(&mut redis).await.unwrap();
        assert!((1..=300).contains(&ttl), "{key} is gone in {ttl} s");
    }
}

/// `top_content`, the leader first.
pub(crate) fn counts(oracle: &Oracle) -> Vec<(String, f64)> {
    let counts = top(oracle.board(TEN_MINUTES_MS).iter().map(|(content, sums)| (content.clone(), sums.events)), 100);
    let mut expected: Vec<(String, f64)> = counts.into_iter().map(|(content, events)| (content, events as f64)).collect();
    // Redis keeps members of the same score in their order, and REV turns that around, too; the query put the least first.
    expected.sort_by(|(left, a), (right, b)| b.total_cmp(a).then_with(|| right.cmp(left)));
    expected
}
