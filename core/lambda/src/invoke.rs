//! Asking for another invocation of the same function.

use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use serde::Serialize;

use crate::start::Start;

/// Why another invocation could not be asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvokeError {
    /// The service does not say who this function is, or where: not on Lambda.
    #[error("{name} is not set: is this process a function?")]
    NotSaid {
        /// The variable.
        name: &'static str,
    },
    /// The event is no JSON, or the address no URL.
    #[error("the request cannot be made")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer.
    #[error("the Lambda service does not answer")]
    Unreachable(#[from] reqwest::Error),
    /// A refusal.
    #[error("the Lambda service answered {status} to an invocation of {function}")]
    Refused {
        /// The function.
        function: String,
        /// The HTTP status.
        status: u16,
    },
}

/// Invokes the function it runs in, without waiting for the result.
///
/// One signed request is all that is needed of the service's interface, and the signature comes with
/// the object store's client; a whole client of the service would double the function's size.
pub struct Invoker {
    client: reqwest::Client,
    credential: AwsCredential,
    region: String,
    function: String,
    url: String,
}

impl Invoker {
    /// For the function that `start` is of. No request is made.
    ///
    /// # Errors
    /// [`InvokeError::NotSaid`].
    pub fn new(start: &Start) -> Result<Self, InvokeError> {
        let said = |name| {
            let value = start.said(name).map(str::to_owned);
            value.ok_or(InvokeError::NotSaid { name })
        };
        let region = said("AWS_REGION")?;
        let function = said("AWS_LAMBDA_FUNCTION_NAME")?;
        let endpoint = start.said("AWS_ENDPOINT_URL_LAMBDA");
        let endpoint = endpoint.or_else(|| start.said("AWS_ENDPOINT_URL"));
        let endpoint = match endpoint {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://lambda.{region}.amazonaws.com"),
        };
        Ok(Self {
            client: reqwest::Client::new(),
            credential: AwsCredential {
                key_id: said("AWS_ACCESS_KEY_ID")?,
                secret_key: said("AWS_SECRET_ACCESS_KEY")?,
                token: start.said("AWS_SESSION_TOKEN").map(str::to_owned),
            },
            url: format!("{endpoint}/2015-03-31/functions/{function}/invocations"),
            region,
            function,
        })
    }

    /// Asks for an invocation with `event`; the service has taken it when this returns.
    ///
    /// # Errors
    /// Those above. An error does not say that it will not run.
    pub async fn invoke(&self, event: &(impl Serialize + Sync)) -> Result<(), InvokeError> {
        let request = self.signed(event)?;
        let (parts, body) = request.into_parts();
        let response = self
            .client
            .post(&self.url)
            .headers(parts.headers)
            .body(body)
            .send()
            .await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(InvokeError::Refused {
                function: self.function.clone(),
                status: status.as_u16(),
            }),
        }
    }

    fn signed(&self, event: &impl Serialize) -> Result<axum::http::Request<Vec<u8>>, InvokeError> {
        fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> InvokeError {
            InvokeError::Request(error.into())
        }
        let body = serde_json::to_vec(event).map_err(failed)?;
        let mut request: HttpRequest = axum::http::Request::post(&self.url)
            .header("content-type", "application/json")
            .header("x-amz-invocation-type", "Event")
            .body(HttpRequestBody::from(body.clone()))
            .map_err(failed)?;
        AwsAuthorizer::new(&self.credential, "lambda", &self.region).authorize(&mut request, None);
        Ok(request.map(|_| body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_is_signed_and_asks_for_no_answer() {
        let invoker = Invoker {
            client: reqwest::Client::new(),
            credential: AwsCredential {
                key_id: "AKID".to_owned(),
                secret_key: "secret".to_owned(),
                token: Some("session".to_owned()),
            },
            region: "eu-west-1".to_owned(),
            function: "stele-compact".to_owned(),
            url: "https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/f/invocations"
                .to_owned(),
        };
        let signed = invoker
            .signed(&serde_json::json!({"job": "compact"}))
            .unwrap();
        let header = |name: &str| signed.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(header("x-amz-invocation-type"), "Event");
        assert_eq!(header("x-amz-security-token"), "session");
        let authorization = header("authorization");
        assert!(
            authorization.contains("/eu-west-1/lambda/aws4_request"),
            "{authorization}"
        );
        assert!(authorization.contains("host;"), "{authorization}");
        assert!(!authorization.contains("secret"), "{authorization}");
        assert_eq!(signed.body(), br#"{"job":"compact"}"#);
    }
}
