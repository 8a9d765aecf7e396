//! Writes logs to stderr and collects metrics for `/metrics`. It never blocks an async thread and never writes to
//! stdout.

use std::{
    fmt,
    io::{self, Write as _},
    panic::PanicHookInfo,
    sync::OnceLock,
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

use crate::clock::Timestamp;

/// Maximum buffered log lines; further lines are dropped and counted.
const BUFFERED_LINES: usize = 16_384;

/// Interval of metrics maintenance, which bounds histograms that are not scraped.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);

/// Histogram buckets of request durations, in seconds.
const REQUEST_BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Histogram buckets of job durations, in seconds.
const JOB_BUCKETS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Log filter of this process, once logging is initialized.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Human-readable, optionally colored.
    Pretty {
        /// Whether to write color escape sequences.
        color: bool,
    },
    /// One flat JSON object per line.
    Json,
    /// Short messages of a command: `warning: …`.
    Notices,
}

/// Configures logging.
#[derive(Clone, Debug)]
pub struct Config {
    /// Filter in [`EnvFilter`] syntax, such as `info,pm::worker=debug`.
    pub filter: String,
    /// Format of lines.
    pub format: Format,
}

/// Flushes buffered lines when dropped; keep it until the process ends.
#[must_use = "without it the last lines are lost"]
pub struct Guard {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let dropped = self.dropped.dropped_lines();
        if dropped > 0 {
            // Ignore the error: stderr is closed.
            let _ = writeln!(io::stderr(), "{dropped} log lines were dropped because stderr was too slow");
        }
    }
}

/// Initializes logging to stderr. A second call has no effect.
///
/// An invalid filter counts as `info`.
pub fn init(config: &Config) -> Guard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(BUFFERED_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(io::stderr());
    let dropped = writer.error_counter();
    let filter = EnvFilter::builder().parse(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match config.format {
        Format::Pretty { color } => {
            let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(color).with_target(false);
            registry.with(lines).try_init()
        }
        Format::Notices => {
            let lines = tracing_subscriber::fmt::layer().with_writer(writer).event_format(Notices);
            registry.with(lines).try_init()
        }
        Format::Json => {
            let lines = tracing_subscriber::fmt::layer().with_writer(writer).event_format(FlatJson);
            registry.with(SpanFields).with(lines).try_init()
        }
    };
    match installed {
        Ok(()) => {
            std::panic::set_hook(Box::new(log_panic));
            FILTER.get_or_init(|| handle);
        }
        Err(_) => tracing::debug!("logging is already initialized"),
    }
    Guard { dropped, _writer: guard }
}

/// Replaces the log filter.
///
/// # Errors
/// A message if `filter` is invalid or logging is not initialized; the filter then stays unchanged.
pub fn set_filter(filter: &str) -> Result<(), String> {
    let parsed = EnvFilter::builder().parse(filter).map_err(|error| error.to_string())?;
    let handle = FILTER.get().ok_or("logging is not initialized in this process")?;
    handle.reload(parsed).map_err(|error| error.to_string())
}

/// Logs a panic. A panic in a decoder is caught and fails only its image.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(place, "panicked: {message}");
}

/// Metrics of the process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Installs the metrics recorder; later calls return the same one.
    pub fn install() -> Self {
        static INSTALLED: OnceLock<Metrics> = OnceLock::new();
        let installed = INSTALLED.get_or_init(|| {
            let recorder = recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed; /metrics stays empty");
            }
            Self { handle }
        });
        installed.clone()
    }

    /// Returns all metrics in Prometheus text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Maintains the metrics periodically; never returns. Run it as one task per process.
    pub async fn keep_up(self) {
        let mut ticks = tokio::time::interval(MAINTENANCE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }
}

/// Creates the recorder. Histograms named `pm_job*` use the job buckets, all others the request buckets.
fn recorder() -> PrometheusRecorder {
    const NOT_EMPTY: &str = "the buckets are not empty";
    PrometheusBuilder::new()
        .set_buckets(&REQUEST_BUCKETS)
        .expect(NOT_EMPTY)
        .set_buckets_for_metric(Matcher::Prefix("pm_job".into()), &JOB_BUCKETS)
        .expect(NOT_EMPTY)
        .build_recorder()
}

/// Fields as JSON, in their original order.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        // Macros write `r#type` for a field named `type`.
        let name = field.name().trim_start_matches("r#");
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    /// Records an error with its causes, separated by colons.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(Some(value), |error| error.source());
        self.set(field, causes.map(ToString::to_string).collect::<Vec<_>>().join(": ").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }
}

/// Stores each span's fields for the lines inside it.
struct SpanFields;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanFields {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }
}

/// Formats one JSON object per line: timestamp, level, target, message, the event's fields and its spans' fields.
struct FlatJson;

impl<S, N> FormatEvent<S, N> for FlatJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // From the innermost span outwards: the innermost of equal field names wins.
        for span in context.event_scope().into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                for (name, value) in &outer.0 {
                    if !fields.0.iter().any(|(known, _)| known == name) {
                        fields.0.push((*name, value.clone()));
                    }
                }
            }
        }
        let line = line(event, &fields).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// Formats one line per event: level, message and fields.
struct Notices;

impl<S, N> FormatEvent<S, N> for Notices
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => "note",
        };
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let of = |wanted: &str| fields.0.iter().find(|(name, _)| *name == wanted).map(|(_, value)| text(value));
        write!(writer, "{level}: {}", of("message").unwrap_or_default())?;
        if let Some(error) = of("error") {
            write!(writer, ": {error}")?;
        }
        let others = fields.0.iter().filter(|(name, _)| !matches!(*name, "message" | "error"));
        let others: Vec<_> = others.map(|(name, value)| format!("{name}: {}", text(value))).collect();
        if others.is_empty() { writeln!(writer) } else { writeln!(writer, " ({})", others.join(", ")) }
    }
}

fn line(event: &Event<'_>, fields: &Fields) -> serde_json::Result<String> {
    const HEAD: [&str; 4] = ["timestamp", "level", "target", "message"];
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut bytes);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("timestamp", &Timestamp::now())?;
    map.serialize_entry("level", event.metadata().level().as_str())?;
    map.serialize_entry("target", event.metadata().target())?;
    if let Some((_, message)) = fields.0.iter().find(|(name, _)| *name == "message") {
        map.serialize_entry("message", message)?;
    }
    for (name, value) in fields.0.iter().filter(|(name, _)| !HEAD.contains(name)) {
        map.serialize_entry(name, value)?;
    }
    map.end()?;
    Ok(String::from_utf8(bytes).expect("JSON is UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics while it writes").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_is_flat_and_contains_the_request_id_of_its_span() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(FlatJson).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(SpanFields).with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let outer = tracing::info_span!("request", request_id = "r-1", status = tracing::field::Empty);
            let _outer = outer.enter();
            outer.record("status", 200);
            let _inner = tracing::info_span!("inner", depth = 2).entered();
            tracing::info!(product.id = 7, depth = 3, "made \"it\"");
        });
        let text = String::from_utf8(lines.0.lock().expect("written").clone()).expect("UTF-8");
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
        let mut line: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("one object");
        let timestamp = line.remove("timestamp").expect("a time");
        assert!(Timestamp::parse(timestamp.as_str().expect("a text")).is_some(), "{timestamp}");
        let expected = serde_json::json!({
            "level": "INFO", "target": "pm::telemetry::tests", "message": "made \"it\"",
            "product.id": 7, "depth": 3, "request_id": "r-1", "status": 200,
        });
        assert_eq!(Value::Object(line), expected);
    }

    #[test]
    fn a_notice_contains_its_error_and_fields() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(Notices).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(installation = "1f", "the blob store was made this installation's");
            tracing::error!(error = "it is full", "nothing was written");
        });
        let text = String::from_utf8(lines.0.lock().expect("written").clone()).expect("UTF-8");
        let expected = "warning: the blob store was made this installation's (installation: 1f)\n\
            error: nothing was written: it is full\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn metrics_are_installed_once_with_buckets_by_name() {
        let (first, second) = (Metrics::install(), Metrics::install());
        metrics::histogram!("pm_job_test_seconds").record(20.0);
        metrics::histogram!("pm_request_test_seconds").record(0.0007);
        let text = first.render();
        assert!(text.contains("pm_job_test_seconds_bucket{le=\"30\"} 1"), "{text}");
        assert!(text.contains("pm_job_test_seconds_bucket{le=\"10\"} 0"), "{text}");
        assert!(text.contains("pm_request_test_seconds_bucket{le=\"0.001\"} 1"), "{text}");
        assert!(second.render().contains("pm_job_test_seconds"));
    }

    #[test]
    fn logs_may_be_installed_twice() {
        let config = Config { filter: "off".into(), format: Format::Json };
        let _first = init(&config);
        let _second = init(&config);
    }
}
