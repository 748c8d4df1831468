//! Invocations on their way to the driver.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::clock::now_ms;
use crate::error::Error;
use crate::function::Function;
use crate::function::target::{LATEST, Target};
use crate::host::Host;
use crate::invocation::{Answer, PAYLOAD_BYTES_MAX, Request, trace_id};
use crate::lineage;
use crate::manager::message::Message;
use crate::manager::stream::StreamItem;

impl Host {
    /// Hands an invocation to the driver, which answers through `reply`.
    pub(crate) async fn begin(
        &self,
        target: Target,
        mut request: Request,
        stream: Option<mpsc::Sender<StreamItem>>,
        reply: oneshot::Sender<Result<Answer, Error>>,
    ) -> Result<(), Error> {
        let function = self.invoked(&target)?;
        function.check_active()?;
        request.check(PAYLOAD_BYTES_MAX)?;
        let trace = request.trace_id.take().unwrap_or_else(|| trace_id(now_ms()));
        let (trace, times) = lineage::passed(&trace, &self.arns().function(&target.name));
        if times > lineage::PASSES_MAX && !self.recursion_allowed(target.name.clone())? {
            return Err(Error::Recursion { name: target.name });
        }
        let span = request.span(target.name.as_str(), &trace);
        request.trace_id = Some(trace);
        let function_arn = self.arns().of_text(target.name.as_str(), target.qualifier.as_deref());
        let closed = |_| Error::Stopping;
        let permits = self.driver().reserve_many(2).await;
        let mut permits = permits.map_err(closed)?;
        let mut tell = |message| permits.next().expect("two were reserved").send(message);
        let invoked = Arc::clone(&function);
        tell(Message::Invoke { function: invoked, function_arn, request, stream, reply, span });
        // The driver may have learnt of a version by this invocation: it is told if that was
        // removed meanwhile.
        if !self.has(&function) {
            tell(Message::Remove { key: function.key(), deployment: Some(function.deployment) });
        }
        Ok(())
    }

    /// Returns the version for an invocation; an alias with two draws one.
    pub(crate) fn invoked(&self, target: &Target) -> Result<Arc<Function>, Error> {
        let record = self.catalog().record(&target.name);
        let qualifier = target.qualifier.as_deref();
        let held = record.as_deref().and_then(|it| it.picked(qualifier, draw()));
        let function = held.map(|it| it.function).ok_or_else(|| {
            let arn = self.arns().qualified(&target.name, qualifier.unwrap_or(LATEST));
            Error::FunctionNotFound { arn }
        })?;
        self.runtimes().check_runnable(&function.config)?;
        Ok(function)
    }

    /// Tells whether a version with this number is there still.
    fn has(&self, function: &Function) -> bool {
        let record = self.catalog().record(&function.config.name);
        record.is_some_and(|it| it.has(function.version))
    }
}

/// A random number from 0 up to 1, without 1.
fn draw() -> f64 {
    // The high half of a random UUID has 4 fixed bits, all above these 32.
    let bits = uuid::Uuid::new_v4().as_u64_pair().0 >> 32;
    u32::try_from(bits).map_or(0.0, |bits| f64::from(bits) / 4_294_967_296.0)
}
