//! The table of routes and the description of the interface tell the same.

use std::collections::BTreeSet;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use hyper::service::Service as _;
use hyper::{Method, Request, StatusCode};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

use super::api::{Api, Limits};
use super::databases::Databases;
use super::routes::{openapi, paths, router};

/// Where the description stands in the tree.
const FILE: &str = "firmware-notes/http.openapi.json";

fn described() -> BTreeSet<(String, String)> {
    let document: Value = serde_json::from_str(&openapi()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let methods = |(path, item): (&String, &Value)| {
        let methods = item.as_object().expect("methods").keys();
        methods.map(|method| (path.clone(), method.to_uppercase())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

#[tokio::test]
async fn each_route_is_described_and_the_other_way_round() {
    let api = Api::new(Databases::default(), None, Limits::default());
    let answerer = TowerToHyperService::new(router(api, Router::new()));
    let mut taken = BTreeSet::new();
    for path in paths() {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            // Nothing has such a name, so nothing is done.
            let asked = path.replace("{keyspace}", "none").replace("{id}", "none");
            let method = method.parse::<Method>().expect("a method");
            let request =
                Request::builder().method(&method).uri(asked).body(Body::empty()).expect("a request");
            let Ok(answer) = answerer.call(request).await;
            if answer.status() != StatusCode::METHOD_NOT_ALLOWED {
                taken.insert((path.to_owned(), method.to_string()));
            }
        }
    }
    assert_eq!(taken, described());
    assert!(taken.len() > 20, "{taken:?}");
}

/// `GATTWAY_WRITE=1` writes it anew.
#[test]
fn the_description_in_the_tree_is_that_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("GATTWAY_WRITE").is_some() {
        std::fs::write(&file, openapi()).expect("written");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == openapi(), "{FILE} is another: GATTWAY_WRITE=1 before this test writes it anew");
}
