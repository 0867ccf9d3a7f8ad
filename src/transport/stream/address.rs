//! Where a peer is, as text: `tcp:HOST:PORT`, `unix:PATH`, `stdio`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The address of a peer, or of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `tcp:HOST:PORT`; an IPv6 host stands in brackets.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `stdio`: standard input and output of this process.
    Stdio,
}

/// A text that is no address, or no URL of a database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {what}: {reason}; write {forms}", what = .form.what(), forms = .form.as_written())]
pub struct AddressError {
    text: String,
    form: Form,
    reason: &'static str,
}

/// What a text was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Form {
    Address,
    #[cfg_attr(not(feature = "websocket"), allow(dead_code))]
    Url,
}

impl Form {
    fn what(self) -> &'static str {
        match self {
            Form::Address => "an address",
            Form::Url => "the URL of a database",
        }
    }

    fn as_written(self) -> &'static str {
        match self {
            Form::Address => "tcp:HOST:PORT, unix:PATH or stdio",
            Form::Url => "ws://HOST:PORT/DATABASE, or wss:// for TLS",
        }
    }
}

impl AddressError {
    pub(in crate::transport) fn new(text: String, form: Form, reason: &'static str) -> AddressError {
        AddressError { text, form, reason }
    }

    /// What is wrong with it.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // the command has forms of its own
    pub(crate) fn reason(&self) -> &'static str {
        self.reason
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let wrong = |reason| Err(AddressError::new(text.to_owned(), Form::Address, reason));
        if text == "stdio" {
            return Ok(Address::Stdio);
        }
        match text.split_once(':') {
            Some(("tcp", rest)) => match rest.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
                        return wrong("an IPv6 host needs brackets");
                    }
                    Ok(Address::Tcp(rest.to_owned()))
                }
                Some((_, port)) if port.parse::<u16>().is_err() => {
                    wrong("the port must be a number up to 65535")
                }
                _ => wrong("the host or the port is missing"),
            },
            Some(("unix", "")) => wrong("the path is missing"),
            Some(("unix", path)) => Ok(Address::Unix(PathBuf::from(path))),
            _ => wrong("it starts with no known kind"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host_and_port) => write!(f, "tcp:{host_and_port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Stdio => f.write_str("stdio"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for text in [
            "tcp:127.0.0.1:4984",
            "tcp:[::1]:0",
            "tcp:gateway.local:80",
            "unix:/run/gattway.sock",
            "unix:a",
            "stdio",
        ] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        let cases = [
            ("tcp:host", "missing"),
            ("tcp::80", "missing"),
            ("tcp:host:70000", "number"),
            ("tcp:::1:80", "brackets"),
            ("unix:", "path"),
            ("http://x", "no known kind"),
            ("", "no known kind"),
        ];
        for (text, reason) in cases {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(reason) && error.contains("tcp:HOST:PORT"), "{text}: {error}");
        }
    }
}
