//! When an adapter advertises, as its section says it.

use std::time::Duration;

use super::section::Section;
use crate::node::advertising::{AdvertPolicy, AdvertPolicyError};

/// Longest time of these keys; the policy itself says what else cannot be.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// The policy; the default one where it cannot be followed, which is noted.
pub(super) fn adverts(section: &Section<'_>) -> AdvertPolicy {
    let Some(policy) = read(section) else { return AdvertPolicy::default() };
    let Err(error) = policy.check() else { return policy };
    let right = "a value with which the others agree; `gattway config init --print` shows the defaults";
    section.wrong(key_of(&policy, &error), error.to_string(), right);
    AdvertPolicy::default()
}

/// `None`: a value is wrong by itself, which is noted.
fn read(section: &Section<'_>) -> Option<AdvertPolicy> {
    let time = |key: &str| section.try_delay(key, TIME_MAX);
    let silent_after = section.has("advert-silent-after").then(|| time("advert-silent-after"));
    let urgent = "advert-urgent-changes";
    Some(AdvertPolicy {
        fast_interval: time("advert-fast-interval")?,
        fast_for: time("advert-fast-for")?,
        fast_rest: time("advert-fast-rest")?,
        slow_interval: time("advert-slow-interval")?,
        silent_after: match silent_after {
            Some(after) => Some(after?),
            None => None,
        },
        silent_for: time("advert-silent-for")?,
        urgent_changes: section.has(urgent).then(|| section.number(urgent, 1, u64::MAX)),
        urgent_collections: section.texts("advert-urgent-collections"),
        change_gap: time("advert-change-gap")?,
    })
}

/// The key that holds what cannot be.
fn key_of(policy: &AdvertPolicy, error: &AdvertPolicyError) -> &'static str {
    let actual = match error {
        AdvertPolicyError::FastIsSlower { .. } => return "advert-fast-interval",
        AdvertPolicyError::Interval { actual }
        | AdvertPolicyError::PhaseTooShort { actual, .. }
        | AdvertPolicyError::Time { actual } => *actual,
    };
    let keys = [
        ("advert-fast-interval", Some(policy.fast_interval)),
        ("advert-slow-interval", Some(policy.slow_interval)),
        ("advert-fast-for", Some(policy.fast_for)),
        ("advert-silent-after", policy.silent_after),
        ("advert-silent-for", Some(policy.silent_for)),
        ("advert-fast-rest", Some(policy.fast_rest)),
    ];
    keys.iter().find(|(_, value)| *value == Some(actual)).map_or("advert-change-gap", |(key, _)| key)
}
