//! The documents in Azurite, past every fault: what the product has written, and what somebody
//! else may have.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use popup_stand_ins::azurite::{ACCOUNT, API_VERSION};
use popup_stand_ins::client::Answer;
use popup_stand_ins::token;
use serde_json::Value;

use crate::cloud::Azure;

impl Azure {
    /// A document, if it is there.
    pub fn document(&self, container: &str, name: &str) -> Option<Value> {
        let answer = self.blob("GET", container, name, None);
        match answer.status {
            200 => Some(answer.json()),
            404 => None,
            _ => panic!("{container}/{name}: {answer:?}"),
        }
    }

    /// Writes a document, whatever is there.
    #[track_caller]
    pub fn write_document(&self, container: &str, name: &str, document: &Value) {
        let answer = self.blob("PUT", container, name, Some(document));
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    /// The lease document of the first region.
    pub fn lease(&self) -> Value {
        self.document("control", LEASE).unwrap_or_default()
    }

    /// Lets the time pass that the claim of a dead handler has left.
    #[track_caller]
    pub fn expire_claim(&self) {
        let mut lease = self.lease();
        let deadline = &mut lease["operation"]["deadline"];
        assert!(deadline.is_string(), "nobody has claimed anything");
        *deadline = (Timestamp::now() - SignedDuration::from_secs(1))
            .to_string()
            .into();
        self.write_document("control", LEASE, &lease);
    }

    /// Lets the time pass in which a dead handler may still have answered.
    #[track_caller]
    pub fn expire_unanswered(&self) {
        let mut config = self.document("control", CONFIG).unwrap();
        let until = &mut config["unanswered"][0]["until"];
        assert!(until.is_string(), "every start has been answered");
        *until = (Timestamp::now() - SignedDuration::from_secs(1))
            .to_string()
            .into();
        self.write_document("control", CONFIG, &config);
    }

    fn blob(&self, method: &str, container: &str, name: &str, body: Option<&Value>) -> Answer {
        let ca_pem = fs::read_to_string(self.directory.path().join("ca.pem")).unwrap();
        let token = token::mint("https://storage.azure.com", "c", "p", Timestamp::now());
        let headers = [
            ("authorization", format!("Bearer {token}")),
            ("x-ms-version", API_VERSION.to_owned()),
            ("x-ms-blob-type", "BlockBlob".to_owned()),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let azurite = self.ready["azurite"].as_str().unwrap();
        let target = format!("/{ACCOUNT}/{container}/{name}");
        let answer = self.call_over(Some(&ca_pem), azurite, method, &target, &headers, body);
        answer.unwrap()
    }
}

const CONFIG: &str = "config.json";
const LEASE: &str = "westeurope.lease.json";
