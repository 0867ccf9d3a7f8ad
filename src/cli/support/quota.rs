//! How much one peer may have stored here: the options of `serve` and `sync`.

use clap::Args;

use crate::cli::support::global::parse_size;
use crate::replicator::PeerQuota;

/// What is taken of one peer.
#[derive(Clone, Debug, Args)]
pub(crate) struct QuotaArgs {
    /// Documents that are taken of one peer in 24 hours, whichever side has called the other; what is used comes back evenly, and
    /// is remembered over restarts. Not with --plain, where nobody proves who it is. 0: any number [default: 250000; of a sync
    /// without --continuous any number]
    #[arg(long, value_name = "N")]
    peer_documents: Option<u64>,

    /// The same in bytes, or as 500K, 64M, 2G [default: 1G; of a sync without --continuous any number]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    peer_bytes: Option<u64>,
}

impl QuotaArgs {
    /// The quota of each peer; `None`: any number of both.
    pub(crate) fn quota(&self) -> Option<PeerQuota> {
        let any = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        let mut quota = PeerQuota::default();
        quota.revisions = self.peer_documents.map_or(quota.revisions, any);
        quota.bytes = self.peer_bytes.map_or(quota.bytes, any);
        (quota.revisions < u64::MAX || quota.bytes < u64::MAX).then_some(quota)
    }

    /// Whether it holds for a sync that is done once, too: somebody has said so. What was not named is not limited then.
    pub(crate) fn of_one_sync(&self) -> Option<QuotaArgs> {
        let is_given = self.peer_documents.is_some() || self.peer_bytes.is_some();
        is_given.then(|| QuotaArgs {
            peer_documents: self.peer_documents.or(Some(0)),
            peer_bytes: self.peer_bytes.or(Some(0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_the_default_or_for_one_sync_any_number() {
        let args = |peer_documents, peer_bytes| QuotaArgs { peer_documents, peer_bytes };
        let read = |quota: Option<PeerQuota>| quota.map(|quota| (quota.revisions, quota.bytes));
        let (revisions, bytes) = (PeerQuota::default().revisions, PeerQuota::default().bytes);
        assert_eq!(read(args(None, None).quota()), Some((revisions, bytes)));
        assert_eq!(read(args(Some(7), None).quota()), Some((7, bytes)));
        assert_eq!(read(args(Some(0), Some(9)).quota()), Some((u64::MAX, 9)));
        assert_eq!(read(args(Some(0), Some(0)).quota()), None);
        assert!(args(None, None).of_one_sync().is_none());
        let one = args(Some(7), None).of_one_sync().and_then(|args| args.quota());
        assert_eq!(read(one), Some((7, u64::MAX)));
    }
}
