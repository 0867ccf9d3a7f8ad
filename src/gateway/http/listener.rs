//! HTTP on TCP as a configuration wants it: opened, and again after a failure, with the token and the certificate that its files
//! hold then.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::api::Api;
use super::guard::Guard;
use super::serve::{Listener, Server};
use crate::gateway::config::HttpConfig;
use crate::gateway::status::ListenerStatus;
use crate::gateway::{GatewayEvent, Tell};
use crate::replicator::RetryPolicy;
use crate::task;

/// The longest pause before it is tried again.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(15);

/// Characters that a token has at least: a shorter one is guessed.
const TOKEN_CHARS_MIN: usize = 16;

/// What the status calls it: the section of the configuration.
const NAME: &str = "http";

/// A listener that is kept open, until it is dropped or stopped.
pub(crate) struct HttpListener {
    ended: watch::Sender<bool>,
    task: JoinHandle<()>,
    status: Arc<Mutex<ListenerStatus>>,
}

impl HttpListener {
    /// `state`: where an identity of our own is.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(crate) fn start(config: HttpConfig, api: Api, state: &Path, tell: Tell) -> HttpListener {
        let (ended, told) = watch::channel(false);
        let status = Arc::new(Mutex::new(ListenerStatus::new(NAME, &config.listen)));
        let keeper = Keeper { config, api, state: state.to_owned(), tell, status: Arc::clone(&status) };
        HttpListener { ended, task: task::spawn(keeper.run(told)), status }
    }

    /// Where it listens, or why it does not.
    pub(crate) fn status(&self) -> ListenerStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends in order.
    pub(crate) async fn stop(self) {
        self.ended.send_replace(true);
        let _ = self.task.await;
    }
}

struct Keeper {
    config: HttpConfig,
    api: Api,
    state: PathBuf,
    tell: Tell,
    status: Arc<Mutex<ListenerStatus>>,
}

impl Keeper {
    async fn run(self, mut ended: watch::Receiver<bool>) {
        let mut retry = RetryPolicy::new(None, RETRY_WAIT_MAX);
        let server = loop {
            let wait = match self.open().await {
                Ok(server) => break server,
                Err(error) => {
                    let wait = retry.failed(fastrand::u32(..)).unwrap_or(RETRY_WAIT_MAX);
                    self.note(Err(error.clone()));
                    (self.tell)(&GatewayEvent::HttpFailed { error, retry: wait });
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = ended.wait_for(|ended| *ended) => return,
            }
        };
        let _ = ended.wait_for(|ended| *ended).await;
        server.stop().await;
    }

    fn note(&self, result: Result<String, String>) {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).take(result);
    }

    async fn open(&self) -> Result<Server, String> {
        let HttpConfig { listen, token, hosts, .. } = &self.config;
        let token = token.line().map_err(|error| format!("the token: {error}; {}", error.advice()))?;
        if token.chars().count() < TOKEN_CHARS_MIN {
            let why =
                "the token is too short, and could be guessed; `head -c 24 /dev/urandom | base64` makes one";
            return Err(why.into());
        }
        let own = crate::node::access::machine_name();
        let names = hosts.iter().cloned().chain([format!("{own}.local"), own]);
        let guard = Guard::token(&token, names);
        let failed = |error: std::io::Error| format!("HTTP on {listen}: {error}");
        let tcp = TcpListener::bind(listen.as_str()).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let (listener, scheme) = self.listener(tcp)?;
        let server = Server::start(listener, self.api.clone().asking_token(), Router::new(), guard);
        let address = format!("{scheme}://{address}");
        self.note(Ok(address.clone()));
        (self.tell)(&GatewayEvent::HttpListens { address: Arc::from(address) });
        Ok(server)
    }

    #[cfg(feature = "websocket")]
    fn listener(&self, tcp: TcpListener) -> Result<(Listener, &'static str), String> {
        let with_advice = |error: crate::gateway::web::WebError| {
            let advice = error.advice().map_or_else(String::new, |advice| format!("; {advice}"));
            format!("HTTP: {error}{advice}")
        };
        let made = crate::gateway::web_files::acceptor(&self.config.web, &self.state).map_err(with_advice)?;
        let Some((acceptor, own)) = made else { return Ok((Listener::Tcp(tcp), "http")) };
        if let Some(own) = own {
            (self.tell)(&GatewayEvent::HttpCertificate { pem: own.0 });
        }
        Ok((Listener::Tls(tcp, acceptor), "https"))
    }

    #[cfg(not(feature = "websocket"))]
    fn listener(&self, tcp: TcpListener) -> Result<(Listener, &'static str), String> {
        // The identity that it would have is TLS's.
        let _ = &self.state;
        Ok((Listener::Tcp(tcp), "http"))
    }
}
