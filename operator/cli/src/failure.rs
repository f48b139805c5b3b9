//! Errors that say what to do next.

use std::fmt;

/// What went wrong, and the next step.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    what: String,
    next: Option<String>,
}

impl Failure {
    /// Without advice.
    pub fn new(what: impl Into<String>) -> Failure {
        Failure {
            what: what.into(),
            next: None,
        }
    }

    /// With the next step.
    pub fn next(mut self, step: impl Into<String>) -> Failure {
        self.next = Some(step.into());
        self
    }

    /// From the API server's answer about `what` (for example "HAReplicaSet a/b").
    pub fn of(what: &str, error: kube::Error) -> Failure {
        let kube::Error::Api(status) = error else {
            return Failure::new(format!("{what}: {error}"))
                .next("check --context and that the API server can be reached");
        };
        match status.code {
            // The object is named in the details; a kind that is not served has none.
            404 if status.details.as_ref().is_none_or(|d| d.name.is_empty()) => {
                Failure::new(format!("{what}: this cluster does not know Holdfast's kinds"))
                    .next("helm upgrade --install holdfast-crds charts/holdfast-crds")
            }
            404 => Failure::new(format!("there is no {what}")).next("`kubectl holdfast status -A` lists what there is"),
            403 => Failure::new(format!("{what}: {}", status.message))
                .next("ask for the role view to look, or edit to change, in this namespace"),
            409 => Failure::new(format!("{what}: {}", status.message)),
            _ => Failure::new(format!("{what}: {}", status.message)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        match &self.next {
            Some(next) => write!(f, "\n next: {next}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::core::response::StatusDetails;

    use super::*;

    #[test]
    fn a_missing_kind_is_told_from_a_missing_object() {
        let kind = Status::failure("404 page not found", "NotFound").with_code(404);
        let text = Failure::of("HAReplicaSet a/b", kube::Error::Api(Box::new(kind))).to_string();
        assert!(text.contains("holdfast-crds"), "{text}");
        let object = Status::failure("not found", "NotFound")
            .with_code(404)
            .with_details(StatusDetails {
                name: "b".into(),
                group: String::new(),
                kind: String::new(),
                uid: String::new(),
                causes: Vec::new(),
                retry_after_seconds: 0,
            });
        let text = Failure::of("HAReplicaSet a/b", kube::Error::Api(Box::new(object))).to_string();
        assert!(
            text.starts_with("error: there is no HAReplicaSet a/b\n next: "),
            "{text}"
        );
    }
}
