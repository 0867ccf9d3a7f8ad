//! What several kinds of section say in the same keys.

use std::collections::BTreeMap;

use super::section::Section;
use super::types::DatabaseConfig;
use crate::database::canonical_collection_name;
use crate::gateway::secret::Secret;
use crate::gateway::web::WebClient;

/// The database that a section belongs to.
pub(super) fn which_database<'a>(
    section: &Section<'_>,
    databases: &'a mut BTreeMap<String, DatabaseConfig>,
) -> Option<&'a mut DatabaseConfig> {
    let names = databases.keys().cloned().collect::<Vec<_>>().join(", ");
    let Some(name) = section.text("database") else {
        if databases.len() > 1 && !section.has("database") {
            let right = format!("write database = \"NAME\", with one of {names}");
            section.wrong("database", "which database is meant is not said, and there are several", right);
        }
        // Without any database that is what is wrong.
        return databases.values_mut().next();
    };
    if !databases.contains_key(&name) {
        section.wrong("database", format!("there is no database {name:?}"), format!("one of {names}"));
    }
    databases.get_mut(&name)
}

/// Full names, each once.
pub(super) fn collections(section: &Section<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in section.texts("collections") {
        match canonical_collection_name(&name) {
            Ok(full) if names.contains(&full) => {}
            Ok(full) => names.push(full),
            Err(error) => section.wrong("collections", error.to_string(), "SCOPE.NAME, or _default"),
        }
    }
    names
}

/// A secret that is in a file or in a credential.
pub(super) fn secret(section: &Section<'_>, stem: &str) -> Option<Secret> {
    let (file_key, credential_key) = (format!("{stem}-file"), format!("{stem}-credential"));
    let file = section.path(&file_key).map(Secret::File);
    let credential = section.text(&credential_key).and_then(|name| {
        let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        if !is_name {
            section.wrong(
                &credential_key,
                "this is no name of a credential",
                "its name, without a directory",
            );
        }
        is_name.then_some(Secret::Credential(name))
    });
    if file.is_some() && credential.is_some() {
        section.wrong(&credential_key, format!("{file_key} is there too"), "one of the two");
    }
    file.or(credential)
}

/// How a server is met.
pub(super) fn web_client(section: &Section<'_>) -> WebClient {
    let (user, password) = (section.text("user"), secret(section, "password"));
    let session = secret(section, "session");
    let user = match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (Some(_), None) => {
            section.wrong("user", "there is no password for it", "password-file or password-credential");
            None
        }
        (None, Some(_)) => {
            section.wrong("user", "there is a password, and no user", "user = \"NAME\"");
            None
        }
        (None, None) => None,
    };
    if user.is_some() && session.is_some() {
        section.wrong("user", "there is a session too", "a user or a session");
    }
    let (roots, pin_cert) = (section.paths("root-certs"), section.path("pin-cert"));
    if pin_cert.is_some() && !roots.is_empty() {
        section.wrong("pin-cert", "there are root-certs too", "one of the two");
    }
    let headers = section.pairs("headers");
    WebClient { user, session, headers, roots, pin_cert, client_cert: section.path("client-cert") }
}
