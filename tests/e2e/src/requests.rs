//! What the API server was asked, by its own audit log; and what a Git server asks the operator.

use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::house::{House, SYSTEM};

/// One request of the operator, or of another controller.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `get`, `patch`, …
    pub verb: String,
    /// What is asked for, with the query.
    pub uri: String,
    /// The ServiceAccount that it acts as; empty for its own requests.
    pub acts_as: String,
    /// The answer.
    pub code: u64,
    /// When the server was done with it, in seconds since 1970.
    pub done: f64,
    /// Whether it has ended; a watch is written down when it begins, too.
    pub ended: bool,
}

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl House {
    /// Now.
    pub fn mark_requests(&self) -> Result<Mark> {
        let file = self.bed.audit_log()?;
        let length = std::fs::metadata(&file).with_context(|| {
            format!(
                "{}: a bed that was started by an older program has no audit log",
                file.display()
            )
        })?;
        Ok(Mark(length.len()))
    }

    /// What the operator has asked since, but for its own leader election and the ends of long watches, which begin again
    /// every few minutes whatever happens.
    pub fn requests_since(&self, mark: Mark) -> Result<Vec<Request>> {
        self.requests_of(SYSTEM, mark)
    }

    /// The same of whatever controllers are in a namespace.
    pub fn requests_of(&self, system: &str, mark: Mark) -> Result<Vec<Request>> {
        let mut found = self.everything_since(system, mark)?;
        found.retain(|r| r.verb != "watch");
        Ok(found)
    }

    /// Watches of the operator that have ended since.
    pub fn ended_watches_since(&self, mark: Mark) -> Result<Vec<Request>> {
        let mut found = self.everything_since(SYSTEM, mark)?;
        found.retain(|r| r.verb == "watch" && r.ended);
        Ok(found)
    }

    /// What ServiceAccounts outside the cluster's own namespaces have asked since: lines of the audit log.
    pub fn audited_since(&self, mark: Mark) -> Result<Vec<Value>> {
        let mut file = std::fs::File::open(self.bed.audit_log()?)?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut lines = String::new();
        file.read_to_string(&mut lines)?;
        // The last line may not be whole yet.
        let whole = lines.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        whole.map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn everything_since(&self, system: &str, mark: Mark) -> Result<Vec<Request>> {
        let system = format!("system:serviceaccount:{system}:");
        let mut found = Vec::new();
        for event in self.audited_since(mark)? {
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            if text("/user/username").starts_with(&system) && text("/objectRef/resource") != "leases" {
                found.push(Request {
                    verb: text("/verb").into(),
                    uri: text("/requestURI").into(),
                    acts_as: text("/impersonatedUser/username").into(),
                    code: event
                        .pointer("/responseStatus/code")
                        .and_then(Value::as_u64)
                        .unwrap_or(0),
                    ended: text("/stage") == "ResponseComplete",
                    done: text("/stageTimestamp")
                        .parse::<jiff::Timestamp>()?
                        .as_duration()
                        .as_secs_f64(),
                });
            }
        }
        Ok(found)
    }
}

/// A Git server that says that something was pushed, as GitHub does, at the operator's Service.
#[derive(Clone, Debug)]
pub struct Webhook {
    address: String,
    path: String,
    /// What the delivery says of who sent it; empty for nothing.
    pub signature: String,
}

/// Nothing in it is believed.
const BODY: &str = r#"{"ref": "refs/heads/main"}"#;

impl Webhook {
    /// For a source, signed with this token.
    pub fn new(house: &House, namespace: &str, source: &str, token: &[u8]) -> Result<Webhook> {
        let service = ["-n", SYSTEM, "get", "service", "holdfast"];
        let address = house.kubectl(&[&service[..], &["-o", "jsonpath={.spec.clusterIP}"]].concat())?;
        let mac = Hmac::<Sha256>::new_from_slice(token)?.chain_update(BODY);
        let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Webhook {
            address,
            path: format!("/hook/{namespace}/{source}"),
            signature: format!("sha256={hex}"),
        })
    }

    /// Delivers; the status of the answer.
    pub fn deliver(&self) -> Result<u16> {
        let mut stream = TcpStream::connect((self.address.as_str(), 9292))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(
            stream,
            "POST {} HTTP/1.1\r\nHost: holdfast\r\nConnection: close\r\nX-Hub-Signature-256: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
            self.path,
            self.signature,
            BODY.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).context("no HTTP answer")?;
        Ok(status.parse()?)
    }
}
