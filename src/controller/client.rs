//! The client of the Kubernetes API for reconciles: every request has a timeout, `Retry-After` is part of the error, and
//! nothing is changed once the Lease is lost.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    core::{Status, response::StatusDetails},
};
use tower::{
    BoxError, Service, filter::FilterLayer, layer::layer_fn, timeout::TimeoutLayer, util::MapResultLayer,
};

use crate::{fence::Fence, traces};

/// How long the API server may take to begin an answer, including admission webhooks.
const ANSWER: Duration = Duration::from_secs(20);

/// A client that changes nothing once the fence is closed. (Leader election has its own client.) It does not retry: a failed
/// step is reported in the status, and has its own backoff.
pub fn client(mut config: Config, fence: Fence) -> Result<Client, kube::Error> {
    config.default_retry = false;
    let filter = FilterLayer::new(move |request: Request<Body>| -> Result<_, BoxError> {
        if request.method().is_safe() || fence.is_open() {
            Ok(request)
        } else {
            Err("this operator does not hold the Lease any more; the new leader continues".into())
        }
    });
    let throttling = MapResultLayer::new(|answer: Result<Response<_>, BoxError>| answer.and_then(throttled));
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&throttling)
        .with_layer(&TimeoutLayer::new(ANSWER))
        .with_layer(&filter)
        .with_layer(&layer_fn(TracedRequests))
        .build())
}

/// Gives requests their spans.
#[derive(Clone)]
struct TracedRequests<S>(S);

impl<S, B> Service<Request<Body>> for TracedRequests<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        traces::request(method, path, self.0.call(request)).boxed()
    }
}

/// Turns an answer with `Retry-After` into an error that contains it: kube's own error omits the header.
fn throttled<B>(answer: Response<B>) -> Result<Response<B>, BoxError> {
    let code = answer.status();
    let after =
        answer.headers().get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.parse::<u32>().ok());
    let (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(seconds)) = (code, after)
    else {
        return Ok(answer);
    };
    let reason = if code == StatusCode::TOO_MANY_REQUESTS { "TooManyRequests" } else { "ServiceUnavailable" };
    let message = format!("the API server answered {}: retry after {seconds} s", code.as_u16());
    let details = StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: seconds,
    };
    let status = Status::failure(&message, reason).with_code(code.as_u16()).with_details(details);
    Err(Box::new(kube::Error::Api(status.boxed())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry_after(code: u16, header: Option<&str>) -> Option<u32> {
        let mut answer = Response::builder().status(code);
        if let Some(header) = header {
            answer = answer.header(RETRY_AFTER, header);
        }
        let error = throttled(answer.body(()).unwrap()).err()?.downcast::<kube::Error>().unwrap();
        let kube::Error::Api(status) = *error else { panic!("{error}") };
        assert_eq!(status.code, code);
        status.details.map(|details| details.retry_after_seconds)
    }

    #[test]
    fn retry_after_is_part_of_the_error() {
        assert_eq!(retry_after(429, Some("7")), Some(7));
        assert_eq!(retry_after(503, Some("1")), Some(1));
        for (code, header) in [(429, None), (429, Some("tomorrow")), (500, Some("7")), (200, Some("7"))] {
            assert_eq!(retry_after(code, header), None, "{code} {header:?}");
        }
    }
}
