//! What a fault run needs to know of a highly available database, whoever operates it.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::house::House;
use crate::sql::Access;

/// A three-member PostgreSQL under test.
pub trait System {
    /// The bed that it runs on.
    fn house(&self) -> &House;
    /// Where its pods are.
    fn namespace(&self) -> &str;
    /// How an application connects to whoever leads.
    fn access(&self) -> Result<Access>;
    /// The primary's pod, as the system's own authority says.
    fn primary(&self) -> Result<String>;
    /// The other members' pods.
    fn replicas(&self) -> Result<Vec<String>>;
    /// Waits until all members are fit again.
    fn wait_fit(&self, limit: Duration) -> Result<()>;
    /// Asks for a planned switchover, as its user would.
    fn switchover(&self) -> Result<()>;

    /// The number of the node that a pod runs on.
    fn node(&self, pod: &str) -> Result<u8> {
        let args = [
            "-n",
            self.namespace(),
            "get",
            "pod",
            pod,
            "-o",
            "jsonpath={.spec.nodeName}",
        ];
        let node = self.house().kubectl(&args)?;
        let number = node.trim().trim_start_matches("node").parse();
        number.with_context(|| format!("pod {pod} is on {node:?}, which is no node of a bed"))
    }

    /// A pod that is not the primary's.
    fn replica(&self) -> Result<String> {
        self.replicas()?.into_iter().next().context("there is no replica")
    }
}
