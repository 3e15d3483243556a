//! Structured logs on standard error: text with colours on a terminal, JSON lines elsewhere.
//!
//! Every line passes a filter that replaces the configured secrets, whatever wrote them: an
//! object-store error, for one, may quote a request.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The filter text is wrong.
    #[error("log filter {filter:?} is not a level or target=level pairs")]
    Filter {
        /// The text.
        filter: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber is already set.
    #[error("logging was started twice")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging for the whole process. `format`: `None` chooses text on a terminal, JSON
/// elsewhere. `filter`: see `STELE_LOG`; `None` is `info`. No value of `secrets` is ever written.
///
/// # Errors
/// A filter that does not parse; a second call.
pub fn init(
    format: Option<LogFormat>,
    filter: Option<&str>,
    secrets: Vec<String>,
) -> Result<(), Error> {
    let filter = filter.unwrap_or("info");
    let parsed = EnvFilter::try_new(filter).map_err(|source| Error::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(terminal)
        .with_writer(Redacting::new(secrets, io::stderr));
    let format = format.unwrap_or(if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(Error::Twice)
}

/// Makes writers that replace secrets. The formatter hands over one whole line per write.
struct Redacting<F> {
    secrets: Arc<[String]>,
    make: F,
}

impl<F> Redacting<F> {
    fn new(secrets: Vec<String>, make: F) -> Self {
        Self {
            secrets: secrets.into(),
            make,
        }
    }
}

impl<'a, W: Write, F: Fn() -> W> MakeWriter<'a> for Redacting<F> {
    type Writer = RedactingWriter<W>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactingWriter {
            secrets: Arc::clone(&self.secrets),
            inner: (self.make)(),
        }
    }
}

struct RedactingWriter<W> {
    secrets: Arc<[String]>,
    inner: W,
}

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let mut clean = None::<String>;
        for secret in self.secrets.iter() {
            let current = clean.as_deref().unwrap_or(&text);
            if current.contains(secret.as_str()) {
                clean = Some(current.replace(secret.as_str(), "[redacted]"));
            }
        }
        match clean {
            Some(clean) => self.inner.write_all(clean.as_bytes())?,
            None => self.inner.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_planted_secret_reaches_no_log_line() {
        let sink = Shared::default();
        let made = sink.clone();
        let make = Redacting::new(vec!["hunter2".to_owned()], move || made.clone());
        let subscriber = tracing_subscriber::fmt().json().with_writer(make).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(url = "https://k:hunter2@s3/", "PUT failed: hunter2");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("PUT failed: [redacted]"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let error = init(None, Some("a=b=c"), Vec::new()).unwrap_err();
        assert!(error.to_string().contains("a=b=c"), "{error}");
    }
}
