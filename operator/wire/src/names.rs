//! Names of the objects that belong to one replica set: derived, never stored.

/// Derives object names from a replica set's name.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a>(pub &'a str);

impl Names<'_> {
    /// The n-th member, counted from 1: its Pod, PVC.
    pub fn member(&self, n: u16) -> String {
        format!("{}-{n}", self.0)
    }
    /// The Lease with the authority record.
    pub fn lease(&self) -> String {
        self.0.to_owned()
    }
    /// The ConfigMap with the wish.
    pub fn spec(&self) -> String {
        format!("{}-spec", self.0)
    }
    /// Service and EndpointSlice of the leader.
    pub fn rw(&self) -> String {
        format!("{}-rw", self.0)
    }
    /// Service and EndpointSlice of replicas within the lag bound.
    pub fn ro(&self) -> String {
        format!("{}-ro", self.0)
    }
    /// Service and EndpointSlice of everyone who may be read from.
    pub fn r(&self) -> String {
        format!("{}-r", self.0)
    }
    /// The Secret for applications.
    pub fn app(&self) -> String {
        format!("{}-app", self.0)
    }
    /// The Secret with the CA's certificate and key; read by the operator only.
    pub fn ca(&self) -> String {
        format!("{}-ca", self.0)
    }
    /// The Secret with a member's certificate.
    pub fn tls(&self, member: &str) -> String {
        format!("{member}-tls")
    }
    /// ServiceAccount, Role and RoleBinding of the agents.
    pub fn account(&self) -> String {
        format!("{}-member", self.0)
    }
    /// The PodDisruptionBudget.
    pub fn budget(&self) -> String {
        self.0.to_owned()
    }
}
