//! Both ends against each other and against bytes that others send: admission, certificates, refusals, hostile requests.

use std::io::ErrorKind;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

use super::*;
use crate::endpoint::{
    Inbound, Message, MessageEndpointConnection as _, MessagingError, ReplicatorConnection,
};

const INBOUND_BYTES: usize = 256 * 1024;

async fn listener(identity: Option<TlsIdentity>, admission: Admission) -> WebSocketListener {
    let mut config = WebSocketListenerConfig::new("plant");
    (config.identity, config.admission) = (identity, admission);
    WebSocketListener::bind("127.0.0.1:0", config).await.expect("bind")
}

fn passwords() -> Admission {
    Admission::Passwords(Arc::new(|user, password| match (user, password) {
        ("pump", "häuschen:7") => Ok(None),
        _ => Err(NotAdmitted),
    }))
}

fn as_pump(password: &str) -> WebSocketClientConfig {
    let password = Zeroizing::new(password.to_owned());
    let credentials = Some(Credentials::Basic { user: "pump".into(), password });
    WebSocketClientConfig { credentials, ..WebSocketClientConfig::default() }
}

fn client(url: &str, config: &WebSocketClientConfig) -> WebSocketClient {
    WebSocketClient::new(url.parse().expect("a URL"), config).expect("a configuration")
}

async fn open(connection: &WebSocketConnection) -> Result<Inbound, MessagingError> {
    let (handle, inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    connection.open(handle).await?;
    Ok(inbound)
}

/// Opens both ends.
async fn meet(listener: &WebSocketListener, client: &WebSocketClient) -> Result<(), MessagingError> {
    let active = client.connection(SUB_PROTOCOL);
    let mut active_in = open(&active).await?;
    let passive = listener.accept().await.expect("accept");
    let mut passive_in = open(&passive).await?;
    let bytes: Vec<u8> = (0..300_000).map(|i| (i % 251) as u8).collect();
    let send = async |connection: &WebSocketConnection| {
        for chunk in bytes.chunks(7777) {
            connection.send(Message::from_bytes(chunk.to_vec())).await.expect("send");
        }
        connection.close(None).await.expect("close");
    };
    let collect = async |inbound: &mut Inbound| {
        let mut got = Vec::new();
        while let Some(message) = inbound.next().await {
            got.extend_from_slice(&message);
        }
        got
    };
    let (_, _, there, back) =
        tokio::join!(send(&active), send(&passive), collect(&mut passive_in), collect(&mut active_in));
    assert!(there == bytes && back == bytes);
    Ok(())
}

/// Why a client does not come in.
async fn refused(client: &WebSocketClient) -> MessagingError {
    open(&client.connection(SUB_PROTOCOL)).await.expect_err("it was let in")
}

#[tokio::test]
async fn bytes_go_both_ways_and_the_end_is_clean() {
    let listener = listener(None, Admission::Everybody).await;
    meet(&listener, &client(listener.url(), &WebSocketClientConfig::default())).await.expect("a connection");
}

#[tokio::test]
async fn users_come_in_by_their_password_alone() {
    let listener = listener(None, passwords()).await;
    meet(&listener, &client(listener.url(), &as_pump("häuschen:7"))).await.expect("the right password");
    for config in [WebSocketClientConfig::default(), as_pump("häuschen"), as_pump("")] {
        let error = refused(&client(listener.url(), &config)).await;
        assert!(!error.is_recoverable() && error.message().contains("HTTP 401"), "{error}");
    }
    // Who is not admitted cannot ask which databases there are.
    let other =
        client(&format!("ws://{}/other", listener.local_address()), &WebSocketClientConfig::default());
    assert!(refused(&other).await.message().contains("HTTP 401"));
    let other = client(&format!("ws://{}/other", listener.local_address()), &as_pump("häuschen:7"));
    let error = refused(&other).await;
    assert!(!error.is_recoverable() && error.message().contains("has no database \"other\""), "{error}");
}

#[tokio::test]
async fn the_passive_side_knows_the_user() {
    let listener = listener(None, passwords()).await;
    let active = client(listener.url(), &as_pump("häuschen:7")).connection(SUB_PROTOCOL);
    let (opened, accepted) = tokio::join!(open(&active), listener.accept());
    let (_inbound, passive) = (opened.expect("open"), accepted.expect("accept"));
    assert_eq!((passive.user(), passive.peer_uid().as_deref()), (Some("pump"), Some("user:pump")));
    assert_eq!(active.peer_uid(), None);
}

/// Certificates from an issuer of their own: the root in PEM, and who has one.
struct Issuer(CertifiedIssuer<'static, KeyPair>);

impl Issuer {
    fn new() -> Issuer {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // Issuers of one name would only differ by their signature.
        let name = format!("issuer {:x}", fastrand::u64(..));
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Issuer(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an issuer"))
    }

    fn root(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    fn issue(&self, name: &str, last_year: i32) -> TlsIdentity {
        self.issue_with(name, last_year, IsCa::ExplicitNoCa)
    }

    fn issue_with(&self, name: &str, last_year: i32, is_ca: IsCa) -> TlsIdentity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.is_ca = is_ca;
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(last_year, 1, 1));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        TlsIdentity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
            .expect("an identity")
    }
}

fn trusting(trust: ServerTrust) -> WebSocketClientConfig {
    WebSocketClientConfig { trust, ..WebSocketClientConfig::default() }
}

#[tokio::test]
async fn a_server_is_believed_by_its_certificate_alone() {
    let issuer = Issuer::new();
    let ours = trusting(ServerTrust::System { extra_roots: vec![issuer.root()] });
    let good = listener(Some(issuer.issue("127.0.0.1", 2090)), Admission::Everybody).await;
    meet(&good, &client(good.url(), &ours)).await.expect("a certificate of the root that was given");

    let others = trusting(ServerTrust::System { extra_roots: vec![Issuer::new().root()] });
    let expired = listener(Some(issuer.issue("127.0.0.1", 2020)), Admission::Everybody).await;
    let misnamed = listener(Some(issuer.issue("gateway.local", 2090)), Admission::Everybody).await;
    let as_issuer = issuer.issue_with("127.0.0.1", 2090, IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let as_issuer = listener(Some(as_issuer), Admission::Everybody).await;
    for (listener, config, said) in [
        (&as_issuer, &ours, "one of an issuer"),
        (&good, &others, "signed by nobody"),
        (&expired, &ours, "has expired"),
        (&misnamed, &ours, "for another name"),
    ] {
        let error = refused(&client(listener.url(), config)).await;
        assert!(!error.is_recoverable() && error.message().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_pinned_certificate_is_enough_and_no_other_is() {
    let made = || {
        let pem = TlsIdentity::generate_pem(["gateway.local".to_owned()]).expect("an identity");
        TlsIdentity::from_pem(pem.as_bytes(), pem.as_bytes()).expect("what was made can be read")
    };
    let (identity, other) = (made(), made());
    let pin = |identity: &TlsIdentity| trusting(ServerTrust::Pinned(identity.certificate_pem().into_bytes()));
    let listener = listener(Some(identity.clone()), Admission::Everybody).await;
    meet(&listener, &client(listener.url(), &pin(&identity))).await.expect("the pinned certificate");
    let error = refused(&client(listener.url(), &pin(&other))).await;
    assert!(!error.is_recoverable() && error.message().contains("not the pinned one"), "{error}");
}

#[tokio::test]
async fn a_client_can_be_known_by_its_certificate() {
    let issuer = Issuer::new();
    let listener =
        listener(Some(issuer.issue("127.0.0.1", 2090)), Admission::Certificates(issuer.root())).await;
    let mut config = trusting(ServerTrust::System { extra_roots: vec![issuer.root()] });
    config.identity = Some(issuer.issue("pump", 2090));
    meet(&listener, &client(listener.url(), &config)).await.expect("a certificate of the issuer");
    for identity in [None, Some(Issuer::new().issue("pump", 2090)), Some(issuer.issue("pump", 2020))] {
        config.identity = identity;
        refused(&client(listener.url(), &config)).await;
    }
    let no_tls = WebSocketListenerConfig {
        admission: Admission::Certificates(issuer.root()),
        ..WebSocketListenerConfig::new("plant")
    };
    let error = WebSocketListener::bind("127.0.0.1:0", no_tls).await.err().expect("certificates without TLS");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_is_no_certificate_is_refused_by_name() {
    let pem = TlsIdentity::generate_pem(["a".to_owned()]).expect("an identity");
    let other = TlsIdentity::generate_pem(["a".to_owned()]).expect("an identity");
    assert!(matches!(TlsIdentity::from_pem(b"", pem.as_bytes()), Err(TlsError::NoCertificate)));
    assert!(matches!(TlsIdentity::from_pem(pem.as_bytes(), b"x"), Err(TlsError::NoKey)));
    assert!(matches!(TlsIdentity::from_pem(pem.as_bytes(), other.as_bytes()), Err(TlsError::Unusable(_))));
    let with = |name: &str, value: &str| {
        let headers = vec![(name.to_owned(), value.to_owned())];
        let config = WebSocketClientConfig { headers, ..WebSocketClientConfig::default() };
        WebSocketClient::new("ws://a/b".parse().expect("a URL"), &config).map(|_| ())
    };
    assert!(with("X-Plant", "7").is_ok());
    assert!(with("X-Plant", "7\r\nHost: evil").is_err() && with("X Plant", "7").is_err());
}

/// What a listener answers to these bytes, up to its end.
async fn answer_to(listener: &WebSocketListener, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(listener.local_address()).await.expect("connect");
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_no_request_for_a_sync_gets_an_answer_and_no_place() {
    let listener = listener(None, Admission::Everybody).await;
    let upgrade = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let sync = "Sec-WebSocket-Protocol: BLIP_3+CBMobile_4\r\n";
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    for (bytes, status) in [
        ("GET /plant/_blipsync HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "426"),
        (format!("GET /plant/_blipsync HTTP/1.1\r\n{upgrade}\r\n"), "400"),
        (format!("GET /other/_blipsync HTTP/1.1\r\n{upgrade}{sync}\r\n"), "404"),
        (format!("GET /plant/../plant/_blipsync HTTP/1.1\r\n{upgrade}{sync}\r\n"), "404"),
        (format!("POST /plant/_blipsync HTTP/1.1\r\n{upgrade}{sync}\r\n"), "405"),
        (long, "4"),
        ("\u{0}\u{1}\u{16}\u{3}garbage\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = answer_to(&listener, bytes.as_bytes()).await;
        let first = answer.lines().next().unwrap_or_default().to_owned();
        assert!(first.starts_with(&format!("HTTP/1.1 {status}")), "{:?} to {:?}", first, bytes.get(..60));
    }
    // It goes on as before.
    meet(&listener, &client(listener.url(), &WebSocketClientConfig::default())).await.expect("a connection");
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out() {
    let listener = listener(None, Admission::Everybody).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(listener.local_address()).await.expect("connect"));
    }
    meet(&listener, &client(listener.url(), &WebSocketClientConfig::default())).await.expect("a connection");
    // The oldest have given way.
    let mut byte = [0; 1];
    assert!(matches!(silent[0].read(&mut byte).await, Ok(0) | Err(_)));
}

/// A server that answers every request with these bytes.
async fn server(answer: &'static str) -> WebSocketClient {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("ws://{}/plant", socket.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    client(&url, &WebSocketClientConfig::default())
}

#[tokio::test]
async fn what_a_server_says_is_told_with_what_to_do() {
    let body = |status: &'static str| -> &'static str {
        let body = "{\"error\":\"x\",\"reason\":\"out of \\u001b[31mlicences\"}";
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak()
    };
    for (answer, is_recoverable, said) in [
        (body("503 Busy"), true, "no room now (\"out of \\u{1b}[31mlicences\")"),
        (body("500 Oops"), true, "HTTP 500"),
        (body("429 Slow"), true, "no room now"),
        (body("403 No"), false, "may not sync"),
        (body("404 No"), false, "no database \"plant\""),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://b/\r\nContent-Length: 0\r\n\r\n",
            false,
            "sends on to http://b/",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>", false, "something else"),
        ("HTTP/1.1 101 Up\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false, "another request"),
        ("HTTP/1.1 101 Up\r\n\r\n", false, "does not agree"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", false, "no answer in HTTP"),
        ("", true, "no answer in HTTP"),
    ] {
        let error = refused(&server(answer).await).await;
        assert!(error.message().contains(said), "{error} for {answer:?}");
        assert_eq!(error.is_recoverable(), is_recoverable, "{error}");
    }
}

/// What stands in the request of a client with these settings.
async fn request_of(config: &WebSocketClientConfig) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("ws://{}/plant", socket.local_addr().expect("an address"));
    let read = async {
        let (mut stream, _) = socket.accept().await.expect("accept");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request"));
        }
        String::from_utf8(head).expect("text")
    };
    let client = client(&url, config);
    let (head, opened) = tokio::join!(read, refused(&client));
    assert!(opened.is_recoverable(), "the server has said nothing: {opened}");
    head
}

#[tokio::test]
async fn sessions_and_headers_stand_in_the_request() {
    let has = |head: &str, line: &str| head.lines().any(|known| known.eq_ignore_ascii_case(line));
    let mut config = WebSocketClientConfig {
        credentials: Some(Credentials::session("904ac010862f37c8dd99015a33ab5a3565fd8447")),
        headers: vec![("X-Plant".into(), "7".into()), ("X-Plant".into(), "8".into())],
        ..WebSocketClientConfig::default()
    };
    let head = request_of(&config).await;
    for line in [
        "GET /plant/_blipsync HTTP/1.1",
        "Cookie: SyncGatewaySession=904ac010862f37c8dd99015a33ab5a3565fd8447",
        "X-Plant: 7",
        "X-Plant: 8",
    ] {
        assert!(has(&head, line), "{line} in {head}");
    }
    assert!(!head.to_lowercase().contains("authorization"), "{head}");
    let id = Zeroizing::new("1".to_owned());
    config.credentials = Some(Credentials::Session { cookie: Some("Plant".into()), id });
    assert!(has(&request_of(&config).await, "Cookie: Plant=1"));
    let head = request_of(&as_pump("häuschen:7")).await;
    assert!(has(&head, "Authorization: Basic cHVtcDpow6R1c2NoZW46Nw=="), "{head}");
    // What cannot stand there is refused before anything is sent.
    for credentials in [Credentials::basic("a:b", "c"), Credentials::session("1\r\nX-Evil: 1")] {
        let config =
            WebSocketClientConfig { credentials: Some(credentials), ..WebSocketClientConfig::default() };
        assert!(WebSocketClient::new("ws://a/b".parse().expect("a URL"), &config).is_err());
    }
}

/// Frames that come in one piece with the answer are not lost.
#[tokio::test]
async fn bytes_that_come_with_the_upgrade_are_kept() {
    let listener = listener(None, Admission::Everybody).await;
    let mut stream = TcpStream::connect(listener.local_address()).await.expect("connect");
    let request = "GET /plant/_blipsync HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: BLIP_3+CBMobile_4\r\n\r\nfirst frame";
    stream.write_all(request.as_bytes()).await.expect("write");
    let passive = listener.accept().await.expect("accept");
    let mut inbound = open(&passive).await.expect("open");
    let mut got = Vec::new();
    while got.len() < 11 {
        got.extend_from_slice(&inbound.next().await.expect("bytes"));
    }
    assert_eq!(got, b"first frame");
}
