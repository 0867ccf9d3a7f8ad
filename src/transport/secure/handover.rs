//! One member has the newest secret of the group, the other an earlier one: it is handed over in their session, before
//! anything is replicated, and the session then counts as one of the new secret.
//!
//! The side that knows the other's key as a former one gives; the other finds out by being told.

use std::sync::Arc;

use bytes::Bytes;
use subtle::ConstantTimeEq;
use tracing::{info, warn};

use super::shared::{Failure, News, RestsOn, Shared, ended_early};
use crate::endpoint::{Inbound, MessagingError};
use crate::secure::epoch::{EpochError, taken_proof};
use crate::secure::handover::{Hearing, Said, parts, taken};
use crate::secure::{Authentication, Established, PeerId, Psk, SecureError};

/// Bytes of replication that a peer may have sent before it hears that there is something else first. It waits for answers
/// by then.
const EARLY_DATA_BYTES_MAX: usize = 64 * 1024;

/// The session rests on the key of the group that it was made with, or on the newest one, once a peer that has proven a
/// former one has that.
pub(super) async fn agree_on_secret(
    shared: &Arc<Shared>,
    established: Established,
    group: Option<Psk>,
    inbound: &mut Inbound,
    news: &mut News,
) -> Result<Established, Failure> {
    if established.via != Authentication::FormerGroup {
        shared.set_rests_on(RestsOn::Group(group));
        return Ok(established);
    }
    let given = give(shared, inbound, established, news).await;
    if let Err(Failure::Secure(error)) = &given {
        shared.session().fail(error);
        shared.flush_last_word().await;
    }
    given
}

/// Gives the newest secret to a peer that has proven a former one and may have it; returns when the peer has stored it, with
/// who it is now. What it has sent meanwhile stays in `news`.
async fn give(
    shared: &Arc<Shared>,
    inbound: &mut Inbound,
    established: Established,
    news: &mut News,
) -> Result<Established, Failure> {
    let config = &shared.config;
    let policy = &config.policy;
    let Some((psk, signed)) = policy.epoch(&established.peer) else {
        // It may come in by its identity alone, and the new secret is not for it.
        return admitted(shared, established, Authentication::Paired).await;
    };
    shared.set_rests_on(RestsOn::Group(Some(psk.clone())));
    let said = shared.act(|session| parts(&signed).try_for_each(|part| session.seal_group(&part)));
    news.add(said.1);
    said.0.map_err(Failure::Secure)?;
    let deadline = config.clock.now() + config.timeout;
    let mut hearing = Hearing::default();
    shared.flush().await.map_err(Failure::Carrier)?;
    let psk = loop {
        if let Some(psk) = hear(shared, &established, &mut hearing, &psk, news).await? {
            break psk;
        }
        if news.ended || news.data.iter().map(Bytes::len).sum::<usize>() > EARLY_DATA_BYTES_MAX {
            return Err(Failure::Carrier(MessagingError::recoverable(
                "the peer has an earlier secret of the group and did not take the new one",
            )));
        }
        tokio::select! {
        biased;
                   message = inbound.next() => match message {
                       Some(message) => {
                           let (result, more) = shared.act(|session| session.handle_bytes(&message));
                           news.add(more);
                           result.map_err(Failure::Secure)?;
                           shared.flush().await.map_err(Failure::Carrier)?;
                       }
                       None => return Err(ended_early(inbound)),
                   },
                   () = config.clock.sleep_until_some(Some(deadline)) => {
                       return Err(Failure::Secure(SecureError::Timeout { limit: config.timeout }));
                   }
               }
    };
    info!(peer = %established.peer, "a member has taken the new secret of the group");
    policy.has_key(&established.peer, &psk);
    shared.set_rests_on(RestsOn::Group(Some(psk)));
    admitted(shared, established, Authentication::Group).await
}

/// Takes what has come of the peer's words; the group's key that both have now, once the peer has said that it has it.
async fn hear(
    shared: &Arc<Shared>,
    established: &Established,
    hearing: &mut Hearing,
    psk: &Psk,
    news: &mut News,
) -> Result<Option<Psk>, Failure> {
    let mut agreed = None;
    for content in std::mem::take(&mut news.group) {
        match hearing.take(&content).map_err(Failure::Secure)? {
            Some(Said::Taken(proof)) => {
                let expected = taken_proof(psk, &established.hash, &established.peer);
                if !bool::from(expected.ct_eq(&proof)) {
                    return Err(Failure::Secure(SecureError::Malformed));
                }
                agreed = Some(psk.clone());
            }
            // Both sides have a secret that the other has not: the later one is taken.
            Some(Said::Epoch(signed)) => {
                let is_newer = take(shared, established, signed.to_vec()).await.map_err(Failure::Secure)?;
                if is_newer {
                    shared.flush().await.map_err(Failure::Carrier)?;
                    agreed = shared.config.policy.group_psk();
                }
            }
            None => {}
        }
    }
    Ok(agreed)
}

/// Asks again what the peer may do, by what it counts as from now on.
async fn admitted(
    shared: &Arc<Shared>,
    established: Established,
    via: Authentication,
) -> Result<Established, Failure> {
    let peer = established.peer;
    match shared.config.policy.admit(&peer, via) {
        Ok(grant) => Ok(Established { via, grant, ..established }),
        Err(refusal) => {
            shared.session().refuse(refusal.into());
            shared.flush_last_word().await;
            Err(Failure::Secure(SecureError::NotAdmitted { peer, refusal }))
        }
    }
}

/// What a member says of the group in a session that is open: an epoch is taken.
pub(super) async fn listen(
    shared: &Arc<Shared>,
    established: Option<&Established>,
    hearing: &mut Hearing,
    contents: Vec<Bytes>,
) -> Result<(), SecureError> {
    let established = established.filter(|established| established.via == Authentication::Group);
    for content in contents {
        match (hearing.take(&content)?, established) {
            (Some(Said::Epoch(signed)), Some(established)) => {
                take(shared, established, signed.to_vec()).await?;
            }
            (Some(_), _) => return Err(SecureError::Malformed),
            (None, _) => {}
        }
    }
    Ok(())
}

/// Stores an epoch, and tells the peer once it is on stable storage; false if this side has a later one. Meanwhile the session is
/// not ended for resting on the old secret, and afterwards it rests on the new one.
async fn take(shared: &Arc<Shared>, established: &Established, signed: Vec<u8>) -> Result<bool, SecureError> {
    let before = shared.set_rests_on(RestsOn::Changing);
    let policy = Arc::clone(&shared.config.policy);
    let peer: PeerId = established.peer;
    let stored = crate::task::blocking(move || policy.take_epoch(&peer, &signed)).await;
    let policy = &shared.config.policy;
    let result = match stored {
        Some(Ok(())) => Ok(true),
        Some(Err(EpochError::NotNewer { .. })) => Ok(false),
        Some(Err(error)) => {
            warn!(%peer, %error, "the group's new secret was not taken");
            Err(SecureError::Epoch(error))
        }
        None => Err(SecureError::Epoch(EpochError::Store { detail: "it was given up".into() })),
    };
    match (&result, policy.group_psk()) {
        (Ok(true), Some(psk)) => {
            let proof = taken_proof(&psk, &established.hash, &shared.config.identity.id());
            let (said, _) = shared.act(|session| session.seal_group(&taken(&proof)));
            said?;
            policy.has_key(&peer, &psk);
            shared.set_rests_on(RestsOn::Group(Some(psk)));
            info!(%peer, "took the new secret of the group");
        }
        _ => drop(shared.set_rests_on(before)),
    }
    shared.owes.notify_one();
    shared.recheck.notify_one();
    result
}
