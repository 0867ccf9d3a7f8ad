//! What a gateway says of itself in words.

use crate::gateway::address::PlaceAddress;
use crate::gateway::config::Config;
use crate::gateway::status::GatewayStatus;

/// Where others may read along or take part, which nobody should learn by surprise.
pub(super) fn open_places(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    for database in config.databases.values() {
        for (name, listener) in database.listeners.iter().filter(|(_, listener)| listener.plain) {
            let is_tls = is_tls(&listener.address);
            if !is_tls {
                notes
                    .push(format!("listener {name}: NOT encrypted: anybody in reach may read along (plain)"));
            }
            if !listener.web.proves_peers() {
                notes.push(format!(
                    "listener {name}: nobody has to prove anything: whoever reaches it may take part"
                ));
            }
        }
        let plain =
            database.upstreams.iter().filter(|(_, upstream)| upstream.plain && !is_tls(&upstream.address));
        notes.extend(
            plain.map(|(name, _)| {
                format!("upstream {name}: NOT encrypted, and the peer proves nothing (plain)")
            }),
        );
    }
    notes
}

fn is_tls(address: &PlaceAddress) -> bool {
    #[cfg(feature = "websocket")]
    return matches!(address, PlaceAddress::WebSocket(url) if url.is_tls());
    #[cfg(not(feature = "websocket"))]
    {
        let _ = address;
        false
    }
}

/// A gateway in a line.
pub(super) fn line_of(status: &GatewayStatus) -> String {
    let databases = &status.databases;
    let open = databases.iter().filter(|database| database.open).count();
    let listeners = databases.iter().flat_map(|database| &database.listeners).chain(&status.http);
    let (all, listening) = listeners
        .fold((0, 0), |(all, listening), listener| (all + 1, listening + usize::from(listener.listening)));
    let peers = databases.iter().flat_map(|database| &database.neighbours);
    let connected = peers.filter(|peer| peer.connected).count();
    let upstreams = databases.iter().flat_map(|database| &database.upstreams);
    let bad: Vec<&str> = upstreams
        .filter(|upstream| upstream.error.is_some())
        .map(|upstream| upstream.name.as_str())
        .chain(
            status
                .http
                .iter()
                .filter(|http| !http.listening && http.error.is_some())
                .map(|http| http.name.as_str()),
        )
        .collect();
    let failing = if bad.is_empty() { String::new() } else { format!("; failing: {}", bad.join(", ")) };
    let count = databases.len();
    format!(
        "{open} of {count} databases open, {listening} of {all} listeners, {connected} peers connected{failing}"
    )
}
