//! Every key that a configuration knows, with its default and what it means: what is read, what `config init` writes, and
//! what an unknown key may have been meant for all come from here.
//!
//! One file, because it is the one place that has all keys.

/// A key of a section.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What holds without it.
    pub(crate) without: Without,
    /// One or more lines for people.
    pub(crate) doc: &'static str,
}

/// What holds if a key is not there.
#[derive(Debug)]
pub(crate) enum Without {
    /// This value, as TOML.
    Default(&'static str),
    /// Something that one value does not say; the value is an example.
    Else(&'static str),
    /// The section is wrong; the value is an example.
    Required(&'static str),
}

impl Key {
    /// The default or the example, as TOML.
    pub(crate) fn sample(&self) -> &'static str {
        match self.without {
            Without::Default(value) | Without::Else(value) | Without::Required(value) => value,
        }
    }
}

/// A kind of section.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The table's name.
    pub(crate) name: &'static str,
    /// A name for one of them, as in `[databases.plant]`; `None`: there is one of this kind, without a name.
    pub(crate) example: Option<&'static str>,
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [Key],
}

const fn key(name: &'static str, without: Without, doc: &'static str) -> Key {
    Key { name, without, doc }
}

use Without::{Default, Else, Required};

const WHICH_DATABASE: Key =
    key("database", Else("\"plant\""), "The name of the database; needed where there are several.");
const PLAIN: &str = "No secure session, as with --plain: for stock Couchbase peers and servers. The other side must want it too.";

/// The process.
pub(crate) const GATEWAY: Kind = Kind {
    name: "gateway",
    example: None,
    doc: "The process.",
    keys: &[
        key(
            "state",
            Else("\"/var/lib/gattway\""),
            "Where databases are whose path is not absolute.\n\
             Without it $STATE_DIRECTORY, which systemd sets, or /var/lib/gattway.",
        ),
        key(
            "socket",
            Else("\"/run/gattway/control\""),
            "The socket by which `gattway status` and other programs ask, in HTTP; its owner alone can.\n\
             Without it `control` in $RUNTIME_DIRECTORY, which systemd sets, or in /run/gattway.",
        ),
        key(
            "medium-cycles",
            Else("1000"),
            "How often the medium can be written over as a whole, as its maker says. `gattway status` tells then how long it\n\
             would last; without it nothing is assumed.",
        ),
    ],
};

/// HTTP beyond the sockets of the machine.
pub(crate) const HTTP: Kind = Kind {
    name: "http",
    example: None,
    doc: "HTTP on TCP, beside the Unix sockets of the gateway and of each database.",
    keys: &[
        key(
            "listen",
            Else("\"127.0.0.1:4986\""),
            "HOST:PORT. Without it nothing listens. Beyond this machine it needs TLS, since whoever reads the token has it.",
        ),
        key(
            "token-file",
            Else("\"/etc/gattway/http.token\""),
            "What clients have to send, `Authorization: Bearer TOKEN`: the first line, 16 characters or more; the file is\n\
             closed to others. Whoever has it may do everything with all documents.",
        ),
        key("token-credential", Else("\"http\""), "The same from a systemd credential of this name."),
        key(
            "hosts",
            Default("[]"),
            "Names by which clients ask for this machine, beside its addresses, its name and localhost.",
        ),
        key("tls-cert", Else("\"/etc/gattway/tls.pem\""), "The certificate with its chain (PEM): https."),
        key(
            "tls-key",
            Else("\"/etc/gattway/key.pem\""),
            "Its key; without it the key is in the file of the certificate.",
        ),
        key(
            "tls-self-signed",
            Default("false"),
            "https: makes a key and a certificate at the first use, in tls.pem of the state directory; clients pin it.",
        ),
    ],
};

/// A database that is served.
pub(crate) const DATABASES: Kind = Kind {
    name: "databases",
    example: Some("plant"),
    doc: "A database, made if there is none. At least one; the name is yours.",
    keys: &[
        key(
            "path",
            Else("\"plant.db\""),
            "Its directory. Without it the name with .db, in the state directory.",
        ),
        key(
            "collections",
            Default("[]"),
            "The collections that are synced; none named: all that there are at the start.",
        ),
        key(
            "create-collections",
            Default("true"),
            "Whether collections that are named and not there are made.",
        ),
        key(
            "durability",
            Default("\"synced\""),
            "synced: a write counts when the medium has it. relaxed: up to half a second later, with fewer writes;\n\
             what a peer sends is synced before the peer is told so in either case.",
        ),
        key(
            "commit-delay",
            Default("\"0s\""),
            "How long a write may wait for others, so that they go to the medium together: fewer writes, a card that lasts longer.\n\
             What was acknowledged is on the medium all the same: whoever wrote, a peer too, is answered that much later, and\n\
             other peers see it then. At most 60s.",
        ),
        key("keep-free", Default("\"2M\""), "Nothing is stored while less than this is free on the disk."),
        key("read-only", Default("false"), "Peers that connect may only get documents."),
        key(
            "trust-all",
            Default("false"),
            "Strangers are let in as well: encrypted, but whoever comes may do everything.\n\
             Without it those of the group, and paired ones.",
        ),
        key(
            "group-file",
            Else("\"/etc/gattway/group.code\""),
            "The code of the group to join where the database is in none yet; the file is closed to others.",
        ),
        key("group-credential", Else("\"group\""), "The same from a systemd credential of this name."),
        key("connections", Default("64"), "Connections of peers at one time."),
        key(
            "peer-documents",
            Default("250000"),
            "Documents that are taken of one peer in 24 hours, pushed by it or pulled from it, if it proves who it is; 0: any number.",
        ),
        key("peer-bytes", Default("\"1G\""), "The same in bytes; \"0\": any number."),
        key(
            "tombstones",
            Default("\"366d\""),
            "How long it is remembered which documents were deleted, for peers that have not heard of it; less, a day at least, once\n\
             all that are known have. What was deleted comes back from nobody after that either.",
        ),
    ],
};

/// A Bluetooth adapter.
pub(crate) const BLUETOOTH: Kind = Kind {
    name: "bluetooth",
    example: Some("radio"),
    doc: "A Bluetooth adapter. One section for each; the name is yours.",
    keys: &[
        key("adapter", Default("\"\""), "The adapter by its name (hci0) or address; empty: the first."),
        WHICH_DATABASE,
        key(
            "roles",
            Default("[\"central\", \"peripheral\"]"),
            "central: looks for neighbours and visits those that have something new. peripheral: is found and connected to.",
        ),
        key("slots", Default("5"), "Connections the adapter is trusted with, of all programs."),
        key("push", Default("true"), "As central: sends documents."),
        key("pull", Default("true"), "As central: gets documents."),
        key(
            "spare-wifi",
            Default("true"),
            "As central: where nothing has been new for a minute, listens for 5 of 20 seconds only; Wi-Fi often has the same antenna.",
        ),
        key("advertise-name", Default("false"), "As peripheral: tells everybody the name of this machine."),
        key(
            "link-security",
            Default("\"none\""),
            "As peripheral, beneath the secure session: none, encrypt (pairs without a code), or authenticate\n\
             (somebody types the code that the log shows).",
        ),
        key("bonded-only", Default("false"), "As peripheral: only devices that have paired before."),
        key(
            "advert-fast-interval",
            Default("\"100ms\""),
            "As peripheral: how often it advertises while something is new. BlueZ 5.66 takes no interval unless it runs with\n\
             --experimental; then that of /etc/bluetooth/main.conf holds, and `status` says `registration`.",
        ),
        key(
            "advert-fast-for",
            Default("\"30s\""),
            "How long at most; it ends sooner when a peer has fetched all.",
        ),
        key(
            "advert-fast-rest",
            Default("\"5m\""),
            "How long after that it is not fast, whatever is new. What becomes urgent does not wait for it, and is told fast again\n\
             after each.",
        ),
        key("advert-slow-interval", Default("\"1s\""), "How often it advertises otherwise, 10.24 s at most."),
        key(
            "advert-silent-after",
            Else("\"10m\""),
            "With nothing pending for so long it is silent: not found, and nobody can bring it anything. Without it never.",
        ),
        key(
            "advert-silent-for",
            Default("\"10m\""),
            "How long it is silent at most, before it is slow for as long as that again.",
        ),
        key(
            "advert-urgent-changes",
            Else("100"),
            "From how many changes on, that no peer has, the advert says that they are urgent.",
        ),
        key("advert-urgent-collections", Default("[]"), "Collections of which every change is urgent."),
        key(
            "advert-change-gap",
            Default("\"1s\""),
            "The shortest time between two changes of what it advertises.",
        ),
    ],
};

/// A place where peers connect.
pub(crate) const LISTENERS: Kind = Kind {
    name: "listeners",
    example: Some("lan"),
    doc: "A place where peers connect. The name is yours.",
    keys: &[
        key(
            "address",
            Required("\"tcp:0.0.0.0:4985\""),
            "tcp:HOST:PORT, unix:PATH, ws://HOST:PORT/DATABASE, or wss://... for TLS.",
        ),
        WHICH_DATABASE,
        key("plain", Default("false"), PLAIN),
        key(
            "users-file",
            Else("\"/etc/gattway/users\""),
            "WebSocket: who may sync, in lines of NAME:PASSWORD; the file is closed to others.",
        ),
        key("users-credential", Else("\"users\""), "The same from a systemd credential of this name."),
        key("tls-cert", Else("\"/etc/gattway/tls.pem\""), "wss: the certificate with its chain (PEM)."),
        key(
            "tls-key",
            Else("\"/etc/gattway/key.pem\""),
            "wss: its key; without it the key is in the file of the certificate.",
        ),
        key(
            "tls-self-signed",
            Default("false"),
            "wss: makes a key and a certificate at the first use, in tls.pem of the database; clients pin it.",
        ),
        key(
            "client-roots",
            Else("\"/etc/gattway/clients.pem\""),
            "wss: who may sync are clients with a certificate of these issuers (PEM).",
        ),
    ],
};

/// A peer that is connected to.
pub(crate) const UPSTREAMS: Kind = Kind {
    name: "upstreams",
    example: Some("central"),
    doc: "A peer to which the gateway connects, to hand data on. The name is yours.",
    keys: &[
        key(
            "address",
            Required("\"wss://sync.example/plant\""),
            "wss://HOST/DATABASE, ws://..., tcp:HOST:PORT, unix:PATH, or ble:ADDRESS for one device.",
        ),
        WHICH_DATABASE,
        key("plain", Default("false"), PLAIN),
        key("collections", Default("[]"), "Of the database's; none named: all."),
        key("push", Default("true"), "Sends documents."),
        key("pull", Default("true"), "Gets documents."),
        key(
            "every",
            Else("\"15m\""),
            "Syncs once in this time; without it, stays connected and passes on every change.",
        ),
        key(
            "retry-wait",
            Default("\"1m\""),
            "The longest wait between two attempts, which doubles from two seconds.",
        ),
        key(
            "heartbeat",
            Default("\"5m\""),
            "So long the peer may be silent before it is asked whether it is there, and as long again, 150 s at most, \
             until the connection is given up. Not for ble:, whose link has its own.",
        ),
        key(
            "peer",
            Else("\"central\""),
            "A name of the peer that outlives its address: what was synced is remembered under it.",
        ),
        key("user", Else("\"gateway-7\""), "WebSocket: the user that the server knows this gateway by."),
        key(
            "password-file",
            Else("\"/etc/gattway/central.password\""),
            "The user's password is the first line; the file is closed to others.",
        ),
        key("password-credential", Else("\"central\""), "The same from a systemd credential of this name."),
        key(
            "session-file",
            Else("\"/etc/gattway/central.session\""),
            "WebSocket: instead of a user, a session of the server (cookie SyncGatewaySession).",
        ),
        key("session-credential", Else("\"central\""), "The same from a systemd credential of this name."),
        key(
            "headers",
            Else("{ X-Plant = \"7\" }"),
            "WebSocket: further headers of the request. `config show` hides what they hold.",
        ),
        key("root-certs", Default("[]"), "wss: files with certificates of further issuers to believe (PEM)."),
        key("pin-cert", Else("\"/etc/gattway/central.pem\""), "wss: the one certificate to believe (PEM)."),
        key(
            "client-cert",
            Else("\"/etc/gattway/gateway.pem\""),
            "wss: the certificate of this gateway, with its key (PEM).",
        ),
    ],
};

/// What is kept of collections.
pub(crate) const RETENTION: Kind = Kind {
    name: "retention",
    example: Some("readings"),
    doc: "What is kept of collections; what is beyond is removed here, the oldest first, and peers do not bring it back. The name is yours.",
    keys: &[
        WHICH_DATABASE,
        key(
            "collections",
            Default("[]"),
            "Of the database's; none named: all. Each can be in one section alone.",
        ),
        key("age", Else("\"90d\""), "Documents that are older are removed."),
        key(
            "documents",
            Else("100000"),
            "The number of documents in each collection; removal makes 1/32 of it free.",
        ),
        key(
            "bytes",
            Else("\"64M\""),
            "Bytes of documents in each collection, as they are stored before they are compressed; likewise.",
        ),
        key(
            "files",
            Else("\"500M\""),
            "Bytes of all files of the database; above it documents of these collections go, and the database is compacted.",
        ),
        key(
            "reserve",
            Else("\"1G\""),
            "What stays free on the disk, likewise. More than `keep-free` of the database, and than its files: a compaction\n\
             needs a second copy.",
        ),
        key(
            "only-confirmed",
            Else("\"central\""),
            "Only what this upstream has confirmed is removed, whatever the other keys say; `status` tells what waits for it.",
        ),
        key(
            "tombstones",
            Else("\"90d\""),
            "How long deletions are remembered in these collections, instead of `tombstones` of the database.",
        ),
    ],
};

/// A broker of MQTT.
pub(crate) const MQTT: Kind = Kind {
    name: "mqtt",
    example: Some("home"),
    doc: "A broker of MQTT to which documents are published, also those that an outage has held up. The name is yours.",
    keys: &[
        key(
            "broker",
            Required("\"mqtt://broker.example:1883\""),
            "mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS.",
        ),
        WHICH_DATABASE,
        key("user", Else("\"gateway-7\""), "The user that the broker knows this gateway by."),
        key(
            "password-file",
            Else("\"/etc/gattway/broker.password\""),
            "The user's password is the first line; the file is closed to others.",
        ),
        key("password-credential", Else("\"broker\""), "The same from a systemd credential of this name."),
        key(
            "root-certs",
            Default("[]"),
            "mqtts: files with certificates of further issuers to believe (PEM).",
        ),
        key("pin-cert", Else("\"/etc/gattway/broker.pem\""), "mqtts: the one certificate to believe (PEM)."),
        key(
            "client-cert",
            Else("\"/etc/gattway/gateway.pem\""),
            "mqtts: the certificate of this gateway, with its key (PEM).",
        ),
        key(
            "client-id",
            Else("\"gateway-7\""),
            "What the broker calls this connection; without it one that follows from the database and this name.",
        ),
        key("collections", Default("[]"), "Those that are published; none named: all."),
        key(
            "topic",
            Default("\"gattway/{_database}/{_collection}\""),
            "Where a document goes. In braces stand paths of its body, as {sensor} or {position.room}, or {_id}, {_collection} or\n\
             {_database}; a value is one level: / + and # in it become _. What lacks a value is counted and not published.\n\
             Empty: nothing is published.",
        ),
        key(
            "time",
            Else("\"time\""),
            "The path of the time of a reading (ISO 8601, or seconds or milliseconds since 1970), which messages have as `_time`;\n\
             where there is none, when the document was written.",
        ),
        key(
            "fields",
            Default("[]"),
            "Paths of what messages have beside `_id` and `_time`; none named: all.",
        ),
        key(
            "retain",
            Default("false"),
            "The broker keeps the last message of a topic for those who come later. Where a topic has no path of the body, a\n\
             document that was deleted takes it away.",
        ),
        key("largest", Default("\"1M\""), "Messages that are larger are counted and not published."),
        key(
            "availability",
            Else("\"gattway/plant/home/availability\""),
            "The topic that says online, and offline when the gateway is not there. Without it gattway/DATABASE/NAME/availability;\n\
             empty: none.",
        ),
        key(
            "discovery",
            Default("\"homeassistant\""),
            "The prefix of the topics by which Home Assistant is told of [sensors.NAME].",
        ),
    ],
};

const WHICH_MQTT: Key =
    key("mqtt", Else("\"home\""), "The name of the section [mqtt.NAME]; needed where there are several.");

/// A topic whose messages become documents.
pub(crate) const TOPICS: Kind = Kind {
    name: "topics",
    example: Some("commands"),
    doc: "A topic of MQTT whose messages become documents. The name is yours.",
    keys: &[
        key(
            "topic",
            Required("\"plant/+/set\""),
            "A filter: + is any one level, # at the end all that follow. What this gateway publishes may not pass it.",
        ),
        WHICH_MQTT,
        key("collection", Required("\"commands\""), "Where the documents go; made if there is none."),
        key(
            "id",
            Default("\"{_topic}\""),
            "The document's ID. In braces stand paths of the message, {_topic}, or {_1}, {_2} and so on for its levels. A message that\n\
             makes the ID of another overwrites its document.\n\
             An object in JSON becomes the document; another value, or a text, becomes {\"topic\": .., \"value\": ..}.",
        ),
    ],
};

/// A sensor as Home Assistant sees it.
pub(crate) const SENSORS: Kind = Kind {
    name: "sensors",
    example: Some("temperature"),
    doc: "A value of documents that Home Assistant shows as a sensor, found by itself (MQTT discovery). The name is yours.",
    keys: &[
        key("field", Required("\"celsius\""), "The path of the value."),
        WHICH_MQTT,
        key(
            "device",
            Required("\"{sensor}\""),
            "What the sensor belongs to, with places as in `topic`: each text that comes out is a device there. All documents of a\n\
             device must have one topic.",
        ),
        key("name", Else("\"Temperature\""), "What people see; without it the name of this section."),
        key("unit", Else("\"°C\""), "The unit of measurement."),
        key("device-class", Else("\"temperature\""), "Home Assistant's word for the kind of value."),
        key(
            "state-class",
            Else("\"measurement\""),
            "measurement, total or total_increasing: Home Assistant keeps statistics.",
        ),
    ],
};

/// All kinds, in the order in which they are explained.
pub(crate) const KINDS: [&Kind; 10] =
    [&GATEWAY, &HTTP, &DATABASES, &BLUETOOTH, &LISTENERS, &UPSTREAMS, &RETENTION, &MQTT, &TOPICS, &SENSORS];

/// What was meant, perhaps.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below it two names have little in common.
    const LIKE: f64 = 0.75;
    let name = name.replace('_', "-").to_lowercase();
    let by_likeness = known.into_iter().map(|known| (strsim::jaro_winkler(&name, known), known));
    let (likeness, known) = by_likeness.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= LIKE).then_some(known)
}
