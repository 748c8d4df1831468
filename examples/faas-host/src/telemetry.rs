//! Events of `tracing` on standard error; with the feature `otlp`, spans to a collector of
//! OpenTelemetry.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::client::Error;

/// What has to be told before the program ends.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    #[cfg(feature = "otlp")]
    spans: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Starts telemetry. Spans go to the traces endpoint of a collector, such as
/// `http://127.0.0.1:4318/v1/traces`, as Protobuf over plain HTTP.
pub(crate) fn start(collector: Option<&str>) -> Result<Telemetry, Error> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter);
    let subscriber = tracing_subscriber::registry().with(lines);
    match collector {
        None => {
            subscriber.init();
            Ok(Telemetry::default())
        }
        #[cfg(feature = "otlp")]
        Some(endpoint) => {
            let provider = provider(endpoint)?;
            let tracer = opentelemetry::trace::TracerProvider::tracer(&provider, "faas-host");
            let spans = tracing_opentelemetry::layer().with_tracer(tracer);
            // The exporter's own requests are not spans to be exported.
            let own = EnvFilter::new("off,lambda_host=info,lambda_sandbox=debug");
            subscriber.with(spans.with_filter(own)).init();
            Ok(Telemetry { spans: Some(provider) })
        }
        #[cfg(not(feature = "otlp"))]
        Some(_) => Err("this program was built without the feature `otlp`".into()),
    }
}

#[cfg(feature = "otlp")]
fn provider(endpoint: &str) -> Result<opentelemetry_sdk::trace::SdkTracerProvider, Error> {
    use opentelemetry_otlp::WithExportConfig as _;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .with_timeout(std::time::Duration::from_secs(5))
        .build()?;
    let resource = opentelemetry_sdk::Resource::builder().with_service_name("faas-host").build();
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder();
    Ok(provider.with_batch_exporter(exporter).with_resource(resource).build())
}

impl Telemetry {
    /// Sends what was not sent yet. Blocks for some seconds at most.
    pub(crate) fn stop(self) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = self.spans
            && let Err(error) = spans.shutdown()
        {
            crate::say::say!("traces      the last spans were not sent: {error}");
        }
    }
}
