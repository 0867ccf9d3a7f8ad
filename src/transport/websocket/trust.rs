//! Whom each side lets in, and how it knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use blake2::{Blake2s256, Digest as _};
use subtle::ConstantTimeEq as _;

use crate::endpoint::AccessRule;

/// The user or the password is wrong; which of them is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAdmitted;

/// Who may sync here.
#[derive(Clone)]
#[non_exhaustive]
pub enum Admission {
    /// Whoever reaches the port.
    Everybody,
    /// Users with a password (HTTP Basic); [`users`](Self::users) makes it of a list. The function says whether a user (first)
    /// has a password (second), and what the user may do: the rule of a connection, or `None` for all that the listener allows.
    /// It is called on a thread that must not block; compare in constant time.
    #[allow(clippy::type_complexity)] // shown where it is needed
    Passwords(Arc<dyn Fn(&str, &str) -> Result<Option<AccessRule>, NotAdmitted> + Send + Sync>),
    /// Clients with a certificate from one of these roots (PEM); with TLS alone.
    Certificates(Vec<u8>),
}

impl Admission {
    /// Lets in the users of a list, each with all that the listener allows: lines of the form `NAME:PASSWORD`; empty ones and
    /// those that begin with `#` are left out. Hashes of the passwords are kept.
    ///
    /// # Errors
    /// The number of the first line that is wrong, and what is wrong with it; 0 if there is no user at all.
    pub fn users(list: &str) -> Result<Admission, (usize, &'static str)> {
        let mut users = BTreeMap::new();
        for (n, line) in (1..).zip(list.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, password) = line.split_once(':').ok_or((n, "NAME:PASSWORD is expected"))?;
            if name.is_empty() || password.is_empty() {
                return Err((n, "the name or the password is empty"));
            }
            if users.insert(name.to_owned(), hash(password)).is_some() {
                return Err((n, "this user was there before"));
            }
        }
        if users.is_empty() {
            return Err((0, "there is no user in it"));
        }
        Ok(Admission::Passwords(Arc::new(move |user, password| {
            // An unknown user takes as long as a wrong password.
            let expected = users.get(user).copied().unwrap_or_default();
            match bool::from(expected.ct_eq(&hash(password))) {
                true => Ok(None),
                false => Err(NotAdmitted),
            }
        })))
    }
}

fn hash(password: &str) -> [u8; 32] {
    Blake2s256::digest(password).into()
}

/// Which servers are believed to be who they say, with `wss`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerTrust {
    /// Those with a certificate for their name from an issuer that this machine trusts, or from one of `extra_roots`.
    System {
        /// Further roots, each a PEM text with one or more certificates.
        extra_roots: Vec<Vec<u8>>,
    },
    /// The one with the first certificate of this PEM text, whatever names and dates are in it.
    Pinned(Vec<u8>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_admitted_by_their_own_password() {
        let users = Admission::users("# who\n\npump:a:b\nweir: c \n").expect("users");
        let Admission::Passwords(check) = users else { panic!("passwords") };
        for (user, password, admitted) in [
            ("pump", "a:b", true),
            ("weir", " c ", true),
            ("weir", "c", false),
            ("pump", " c ", false),
            ("x", "", false),
        ] {
            assert_eq!(check(user, password).is_ok(), admitted, "{user} {password:?}");
        }
        for (text, line) in
            [("", 0), ("# a:b\n", 0), ("a:b\nc\n", 2), ("a:\n", 1), (":a\n", 1), ("a:b\na:c\n", 2)]
        {
            assert_eq!(Admission::users(text).err().expect(text).0, line, "{text:?}");
        }
    }
}
