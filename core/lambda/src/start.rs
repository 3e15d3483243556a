//! The cold start.

use std::sync::Arc;

use stele_auth::Tokens;
use stele_http::Gate;
use stele_model::{Clock, TenantId};
use stele_runtime::{Config, LogFormat, SystemClock, telemetry};
use stele_store::Tiers;

/// Why a function does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A `STELE_*` variable.
    #[error(transparent)]
    Config(#[from] stele_runtime::Error),
    /// Logging.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// No store is named.
    #[error("STELE_STORE is not set: expected s3://bucket/prefix")]
    NoStore,
    /// A store that a function cannot share with the others.
    #[error("STELE_STORE={url} does not outlive a function: expected s3://bucket/prefix")]
    ShortLived {
        /// The store.
        url: String,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] stele_store::Error),
}

/// What every function has before its first invocation. No request was made yet.
pub struct Start {
    /// The environment.
    pub config: Config,
    /// The tiers of `STELE_STORE`.
    pub tiers: Tiers,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

impl Start {
    /// Reads the environment, and starts logging as JSON lines unless it says otherwise.
    ///
    /// # Errors
    /// The first setting that is wrong, by name.
    pub fn from_env() -> Result<Self, StartError> {
        let config = Config::from_env()?;
        let format = config.log_format.unwrap_or(LogFormat::Json);
        telemetry::init(Some(format), config.log.as_deref(), config.secrets())?;
        let url = config.store.as_deref().ok_or(StartError::NoStore)?;
        if url.starts_with("memory:") {
            let url = url.to_owned();
            return Err(StartError::ShortLived { url });
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let tiers = Tiers::open(url, &config.aws, Arc::clone(&clock))?;
        Ok(Self {
            config,
            tiers,
            clock,
        })
    }

    /// Every request needs a token: a function URL is open to the world. While the store holds no
    /// token nobody comes in.
    #[must_use]
    pub fn gate(&self) -> Gate {
        let tokens = Tokens::new(self.tiers.clone(), Arc::clone(&self.clock));
        Gate::tokens(Arc::new(tokens))
    }

    /// The tenant of `STELE_TENANT`, or the default one.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.config.tenant.clone().unwrap_or_default()
    }

    /// What the service says of the function: an `AWS_LAMBDA_*` variable.
    pub(crate) fn said(&self, name: &str) -> Option<&str> {
        let mut said = self.config.aws.iter();
        said.find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The function's name, for its metrics.
    #[must_use]
    pub fn function(&self) -> String {
        let name = self.said("AWS_LAMBDA_FUNCTION_NAME");
        name.unwrap_or("stele").to_owned()
    }

    /// The function's memory, bytes; 512 MiB when the service does not say.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let mib = self.said("AWS_LAMBDA_FUNCTION_MEMORY_SIZE");
        mib.and_then(|mib| mib.parse().ok()).unwrap_or(512_u64) << 20
    }
}
