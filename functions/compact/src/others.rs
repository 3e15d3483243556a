//! Other invocations of this function.

use stele_lambda::{InvokeError, Invoker, Start};
use stele_node::OthersError;
use stele_node::fan_out::Piece;

use crate::{Event, Job};

/// As many as `STELE_FAN_OUT` allows.
pub struct Others {
    invoker: Option<Invoker>,
    max: usize,
}

impl Others {
    /// Without a fan-out nothing of the service's interface is needed.
    pub fn new(start: &Start) -> Result<Self, InvokeError> {
        let max = start.config.fan_out.unwrap_or(0);
        let invoker = (max > 0).then(|| Invoker::new(start)).transpose()?;
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Ok(Self { invoker, max })
    }
}

impl stele_node::Others for Others {
    fn max(&self) -> usize {
        self.max
    }

    async fn ask(&self, share: &[Piece]) -> Result<(), OthersError> {
        let (job, pieces) = (Job::Compact, Some(share.to_vec()));
        match &self.invoker {
            Some(invoker) => Ok(invoker.invoke(&Event { job, pieces }).await?),
            None => Err("STELE_FAN_OUT is 0".into()),
        }
    }
}
